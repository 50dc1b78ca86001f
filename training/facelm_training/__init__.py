"""Where the weights come from: data, augmentation, loops and evaluation."""
