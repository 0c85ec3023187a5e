"""What the site has beyond Sphinx; `setup` tells Sphinx of it."""
