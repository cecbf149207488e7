"""What a device model may ask and be asked: methods, effects, grants, and the names of all models. Pure.

Models, the jail and the VMM import this, so that none of them imports another one. Only `base` may be
imported. What one chip alone knows belongs in its folder of `devices`.
"""
