"""Pictures of scene flow, with Pillow and NumPy alone."""
