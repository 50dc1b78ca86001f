"""Trained weights of facelm-sdk's networks, a .safetensors file and its model card each: data files alone.

``facelm_models.restore("lotr_m_128")`` and ``facelm-export --model lotr_m_128`` find them.
"""
