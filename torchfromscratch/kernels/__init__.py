"""What is heavy in a layer, as plain tensor arithmetic: it knows nothing of autograd."""
