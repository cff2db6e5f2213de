"""How good a flow is, in the field's terms."""
