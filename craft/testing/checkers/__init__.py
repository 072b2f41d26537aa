"""Small, separate properties; `standard()` is all of them."""
