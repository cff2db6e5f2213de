"""The core's arrays and objects as messages, and back."""
