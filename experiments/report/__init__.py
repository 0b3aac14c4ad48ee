"""Every table and figure that is made from the committed results."""
