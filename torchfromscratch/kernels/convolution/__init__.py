"""The three partial gradients of the trilinear form that convolution is.

    S(x, w, g) = Σ g[n, o, i] · w[o, c, k] · x[n, c, i·s + k·d − p]

    correlate         ∂S/∂g    y      cross-correlation of x with w
    full_convolution  ∂S/∂x    dL/dx  full convolution of dL/dy with w: correlation with the rotated kernel
    weight_gradient   ∂S/∂w    dL/dw  cross-correlation of x with dL/dy

x is (N, C, *input), w (O, C/groups, *k) and g (N, O, *output), for any number of spatial dimensions. `reference` is
this definition, to be read. Each other file is an algorithm that computes the same for less, and ends with a `Kernel`
that says which convolutions it fits and what they cost; `dispatch` takes the cheapest that fits.
"""
