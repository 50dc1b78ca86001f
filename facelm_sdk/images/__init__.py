"""Pictures: read from whatever a user has, decoded no larger than needed, drawn on."""
