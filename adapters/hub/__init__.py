"""An adapter on a hub: the model card, and the way up and down."""
