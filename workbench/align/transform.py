"""Where a point of the reference frame lies in another frame: models, their fit, their residuals.

A `Transform` leads from the reference to the frame, the direction in which resampling asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from ..core.errors import WorkbenchError

KINDS = ("shift", "similarity", "affine", "homography", "quadratic", "cubic")
PARAMETERS = {"shift": 2, "similarity": 4, "affine": 6, "homography": 8, "quadratic": 12, "cubic": 20}
_LEAST = {"shift": 3, "similarity": 4, "affine": 12, "homography": 30, "quadratic": 40, "cubic": 80}  # stars, for auto
_TERMS = {
    "shift": ((0, 0),),
    "affine": ((0, 0), (1, 0), (0, 1)),
    "quadratic": ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)),
    "cubic": ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2), (3, 0), (2, 1), (1, 2), (0, 3)),
}


@dataclass(frozen=True)
class Transform:
    """A map from reference positions to frame positions [px], made by `fit_transform`.

    Inside, positions are centred and scaled: ``u = (x - centre) / size``.  `kind` is one of `KINDS`:
    ``homography`` is exact for a flat field of sky seen from two pointings, ``quadratic`` and ``cubic`` take up
    what a lens distorts (radial distortion k r³, seen after a dither or a rotation off the axis, is cubic).

    Examples
    --------
    >>> Transform.identity().apply(3.0, 4.0)
    (3.0, 4.0)
    """

    kind: str
    coefficients: np.ndarray = field(repr=False)
    centre: tuple[float, float] = (0.0, 0.0)
    size: float = 1.0

    @classmethod
    def identity(cls) -> Transform:
        """Return the map of the reference onto itself."""
        return cls("affine", np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))

    def apply(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Return the frame position (x, y) of reference positions; numbers or arrays."""
        u, v = (np.asarray(x, float) - self.centre[0]) / self.size, (np.asarray(y, float) - self.centre[1]) / self.size
        if self.kind == "homography":
            (a, b, c), (d, e, f), (g, h, _) = self.coefficients
            below = g * u + h * v + 1.0
            p, q = (a + b * u + c * v) / below, (d + e * u + f * v) / below
        else:
            p = q = np.zeros(np.broadcast(u, v).shape)
            for basis, a, b in zip(_bases(self.kind, u, v), *self.coefficients, strict=True):
                p, q = p + a * basis, q + b * basis
            if self.kind == "shift":
                p, q = p + u, q + v
        p, q = p * self.size + self.centre[0], q * self.size + self.centre[1]
        return (float(p), float(q)) if np.ndim(p) == 0 else (p, q)

    def jacobian(self, x: float, y: float, step: float = 8.0) -> np.ndarray:
        """Return the 2 x 2 matrix of derivatives ((dx'/dx, dx'/dy), (dy'/dx, dy'/dy)) at a reference position."""
        near = np.array([[step, 0.0, -step, 0.0], [0.0, step, 0.0, -step]])
        places = np.stack(self.apply(x + near[0], y + near[1]))
        return (places[:, :2] - places[:, 2:]) / (2 * step)

    def inverse(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Return the reference position of frame positions, by Newton's method (to 1e-9 px).

        Examples
        --------
        >>> t = Transform("shift", np.array([[12.0], [-3.0]]))
        >>> t.inverse(20.0, 20.0)
        (8.0, 23.0)
        """
        x, y = np.asarray(x, float), np.asarray(y, float)
        matrix = np.linalg.inv(self.jacobian(*self.centre))
        u, v = self.centre
        for _ in range(61):
            p, q = self.apply(u, v)
            du = matrix[0, 0] * (x - p) + matrix[0, 1] * (y - q)
            dv = matrix[1, 0] * (x - p) + matrix[1, 1] * (y - q)
            u, v = u + du, v + dv
            if max(np.max(np.abs(du), initial=0.0), np.max(np.abs(dv), initial=0.0)) < 1e-9:
                break
        return (float(u), float(v)) if np.ndim(u) == 0 else (u, v)

    @property
    def rotation(self) -> float:
        """Rotation of the frame against the reference at the centre [degrees], -180 to 180."""
        matrix = self.jacobian(*self.centre)
        return float(np.degrees(np.arctan2(matrix[1, 0] - matrix[0, 1], matrix[0, 0] + matrix[1, 1])))

    @property
    def scale(self) -> float:
        """Pixels of the frame for one of the reference, at the centre."""
        return float(np.sqrt(abs(np.linalg.det(self.jacobian(*self.centre)))))

    def moved(self, x: float, y: float) -> Transform:
        """Return the same map from a grid whose pixel (0, 0) is the reference's (x, y); exact.

        Examples
        --------
        >>> t = Transform("affine", np.array([[5.0, 0.0, -1.0], [2.0, 1.0, 0.0]]), (10.0, 20.0), 1.0)
        >>> t.moved(-30, 4).apply(31.0, 3.0) == t.apply(1.0, 7.0)
        True
        """
        step = np.array([x, y], float)
        if not step.any():
            return self
        coefficients = np.array(self.coefficients, float)
        if self.kind == "homography":
            coefficients[:2] += np.outer(step / self.size, [1.0, *coefficients[2, :2]])
        else:
            coefficients[:, 0] += step / self.size
        centre = self.centre[0] - float(x), self.centre[1] - float(y)
        return Transform(self.kind, coefficients, centre, self.size)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers that `from_dict` takes back without loss."""
        return asdict(self) | {"coefficients": self.coefficients.tolist(), "centre": list(self.centre)}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> Transform:
        """Return the transform that `to_dict` described."""
        return cls(plain["kind"], np.array(plain["coefficients"], float), tuple(plain["centre"]), plain["size"])


def _bases(kind: str, u: Any, v: Any) -> list[Any]:
    """Return what the coefficients of a polynomial kind multiply; of a homography those of its affine part."""
    terms = _TERMS.get(kind, _TERMS["affine"])
    x, y = [np.ones_like(u)], [np.ones_like(v)]
    for _ in range(max(map(max, terms))):
        x.append(x[-1] * u)
        y.append(y[-1] * v)
    return [x[i] * y[j] for i, j in terms]


def fit_transform(
    reference: np.ndarray,
    frame: np.ndarray,
    error: np.ndarray | float = 1.0,
    *,
    kind: str = "affine",
    weights: np.ndarray | None = None,
) -> tuple[Transform, np.ndarray]:
    """Fit a transform to matched positions by weighted least squares, weights 1/error².

    Parameters
    ----------
    reference, frame
        Positions (star, 2) as (x, y) [px].
    error
        Standard error of a position difference, per axis [px]: one for all or one a star.
    kind
        One of `KINDS`.
    weights
        Multiplies 1/error², for robust fitting; 0 leaves a star out.

    Returns
    -------
    The transform, and the standard error of the place to which it leads each reference position [px] (from the
    design and the errors; for a homography that of the affine part).

    Raises
    ------
    WorkbenchError
        If the kind is unknown or there are fewer stars than the model has parameters for.

    Examples
    --------
    >>> here = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    >>> transform, _ = fit_transform(here, here @ [[0.0, 1.0], [-1.0, 0.0]] + 5.0, kind="similarity")
    >>> round(transform.rotation, 6), round(transform.scale, 6)
    (90.0, 1.0)
    """
    system = _System.of(reference, frame, kind)
    weight = np.broadcast_to(1.0 / np.asarray(error, float) ** 2, (len(reference),))
    transform, covariance = system.solve(weight if weights is None else weight * weights)
    return transform, system.place_error(covariance)


class _System(NamedTuple):
    """Matched positions u, v → p, q, centred and scaled, and a model's linear equations, to be solved by any weights.

    `design` (equation, parameter) times the parameters gives `values`; a homography's are those of its affine part.
    """

    kind: str
    centre: tuple[float, float]
    size: float
    places: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    design: np.ndarray
    values: np.ndarray

    @classmethod
    def of(cls, reference: np.ndarray, frame: np.ndarray, kind: str) -> _System:
        """Return the equations of one of `KINDS` for positions (star, 2)."""
        if kind not in KINDS:
            raise WorkbenchError(f"transform kind {kind!r} is none of {', '.join(KINDS)}")
        centre = np.round(reference.mean(0))
        size = max(float(np.abs(reference - centre).max()), 1.0)
        u, v = ((reference - centre) / size).T
        p, q = ((frame - centre) / size).T
        if kind == "similarity":
            one, zero = np.ones_like(u), np.zeros_like(u)
            design = np.concatenate([np.stack([one, zero, u, -v], 1), np.stack([zero, one, v, u], 1)])
            values = np.concatenate([p, q])
        else:
            design = np.stack(_bases(kind, u, v), 1)
            values = np.stack([p - u, q - v] if kind == "shift" else [p, q], 1)
        return cls(kind, (float(centre[0]), float(centre[1])), size, (u, v, p, q), design, values)

    def solve(self, weight: np.ndarray) -> tuple[Transform, np.ndarray]:
        """Return the transform that fits best by the stars' weights, and the covariance of the parameters."""
        if 2 * np.count_nonzero(weight) < PARAMETERS[self.kind]:
            raise WorkbenchError(
                f"a transform of kind {self.kind!r} needs {PARAMETERS[self.kind] // 2} matched stars; "
                f"there are {np.count_nonzero(weight)}"
            )
        if self.kind == "similarity":
            (a, d, c, s), covariance = least_squares(self.design, self.values, np.tile(weight, 2))
            coefficients = np.array([[a, c, -s], [d, s, c]])
        else:
            solution, covariance = least_squares(self.design, self.values, weight)
            coefficients = solution.T
        if self.kind == "homography":
            coefficients = _homography(coefficients, *self.places, weight)
        return Transform(self.kind, coefficients, self.centre, self.size), covariance

    def place_error(self, covariance: np.ndarray) -> np.ndarray:
        """Return the standard error of the place to which the transform leads each position, in pixels of the frame."""
        rows = self.design[: len(self.places[0])]
        return np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", rows, covariance, rows), 0.0))


def compose(first: Transform, second: Transform, shape: tuple[int, int]) -> Transform:
    """Return the map that does what `first` does and then `second`, for what falls on a frame of `shape` (y, x).

    Fitted to 16 x 16 positions about where the frame lies, of the richer of the two kinds: exact for linear maps.

    Examples
    --------
    >>> one, two = (Transform("shift", np.array([[dx], [dy]])) for dx, dy in ((12.0, -3.0), (0.5, 1.0)))
    >>> both = compose(one, two, (100, 200))
    >>> both.kind, bool(np.allclose(both.apply(7.0, 9.0), (19.5, 7.0)))
    ('shift', True)
    """
    height, width = shape
    middle = first.inverse(*second.inverse((width - 1) / 2, (height - 1) / 2))
    y, x = np.meshgrid(np.linspace(0, height - 1, 16), np.linspace(0, width - 1, 16), indexing="ij")
    x, y = x + middle[0] - (width - 1) / 2, y + middle[1] - (height - 1) / 2
    there = np.stack(second.apply(*first.apply(x.ravel(), y.ravel())), 1)
    kind = max(first.kind, second.kind, key=KINDS.index)
    return fit_transform(np.stack([x.ravel(), y.ravel()], 1), there, kind=kind)[0]


def overlap(transform: Transform, shape: tuple[int, ...]) -> float:
    """Return which share of the reference's area lies in a frame of the same `shape` (y, x), on 32 x 32 places.

    Examples
    --------
    >>> round(overlap(Transform("shift", np.array([[150.0], [0.0]])), (100, 200)), 2)
    0.25
    """
    height, width = shape
    y, x = np.meshgrid(*((np.arange(32) + 0.5) * size / 32 - 0.5 for size in (height, width)), indexing="ij")
    u, v = transform.apply(x, y)
    return float(((u > -0.5) & (u < width - 0.5) & (v > -0.5) & (v < height - 0.5)).mean())


def least_squares(design: np.ndarray, values: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Solve the weighted system; the covariance is in units of the values' errors squared.

    By the normal equations: positions scaled to ±1 keep them well conditioned up to third order.
    """
    weighted = design * weight[:, None]
    squares, axes = np.linalg.eigh(design.T @ weighted)
    known = squares > 1e-15 * squares[-1]
    inverse = (axes[:, known] / squares[known]) @ axes[:, known].T
    return inverse @ (weighted.T @ values), inverse


def _homography(affine, u, v, p, q, weight) -> np.ndarray:
    """Refine an affine start to a homography by Gauss-Newton on the residuals in the frame."""
    matrix = np.vstack([affine, [0.0, 0.0, 1.0]])
    for _ in range(8):
        (a, b, c), (d, e, f), (g, h, _) = matrix
        below = g * u + h * v + 1.0
        at_p, at_q = (a + b * u + c * v) / below, (d + e * u + f * v) / below
        zero, one = np.zeros_like(u), 1.0 / below
        top = np.stack([one, u / below, v / below, zero, zero, zero, -at_p * u / below, -at_p * v / below], 1)
        low = np.stack([zero, zero, zero, one, u / below, v / below, -at_q * u / below, -at_q * v / below], 1)
        step, _ = least_squares(np.concatenate([top, low]), np.concatenate([p - at_p, q - at_q]), np.tile(weight, 2))
        matrix = matrix + np.array([[*step[:3]], [*step[3:6]], [step[6], step[7], 0.0]])
        if np.abs(step).max() < 1e-9:  # the next would be by far smaller
            break
    return matrix


def fit_robust(
    reference: np.ndarray, frame: np.ndarray, error: np.ndarray, *, kind: str = "auto", among: Sequence[str] = KINDS
) -> tuple[Transform, xr.Dataset]:
    """Fit a transform and reject stars that do not follow it; choose the model where none is named.

    Weights are 1/error² times Tukey's biweight of the residuals (cut at 6 scaled MAD), to convergence, so that
    double stars and wrong pairs lose their say.  ``auto`` takes the model, of those `among`, with the least Bayesian
    information criterion: a further term must earn its place.

    Returns
    -------
    The transform, and its residuals: a Dataset over ``star`` with reference position ``x``, ``y``, residuals
    ``dx``, ``dy`` (frame minus model), their ``error``, ``used``, and ``place_error``, the transform's own
    standard error there [px]; attributes ``kind``, ``rms`` (of used stars, per axis), ``scatter`` (residual over
    stated error), ``stars_used`` and ``place_error`` (rms over the stars).
    """
    if kind != "auto":
        return _with_residuals(_fit_one(reference, frame, error, kind), reference, error)
    names = [name for name in among if len(reference) >= _LEAST[name]] or ["shift"]
    fits = [_fit_one(reference, frame, error, name) for name in names]
    spread = [(fit.dx**2 + fit.dy**2) / error**2 for fit in fits]
    # One yardstick for all: residuals cut at the richest model's scale, so that outliers cost each the same.
    scale = max(min(np.median(d2) for d2 in spread) / 1.386, 1e-12)
    terms = [PARAMETERS[name] * np.log(2 * len(reference)) for name in names]
    costs = [np.minimum(d2 / scale, 25.0).sum() + cost for d2, cost in zip(spread, terms, strict=True)]
    return _with_residuals(fits[int(np.argmin(costs))], reference, error)


class _RobustFit(NamedTuple):
    """A transform, the residuals of the stars, its own standard error at them [px], and scatter over stated error."""

    transform: Transform
    dx: np.ndarray
    dy: np.ndarray
    place_error: np.ndarray
    used: np.ndarray
    scatter: float


def _fit_one(reference, frame, error, kind) -> _RobustFit:
    system, weights, trust = _System.of(reference, frame, kind), np.ones(len(reference)), 1.0 / error**2
    scatter = 1.0
    for _ in range(30):
        transform, covariance = system.solve(trust * weights)
        x, y = transform.apply(reference[:, 0], reference[:, 1])
        dx, dy = frame[:, 0] - x, frame[:, 1] - y
        distance = np.hypot(dx, dy) / error
        # The median of a Rayleigh distribution is 1.1774 sigma.
        scatter = max(float(np.median(distance)) / 1.1774, 1e-9)
        new = np.maximum(1.0 - (distance / (6.0 * scatter)) ** 2, 0.0) ** 2
        if np.count_nonzero(new) * 2 <= PARAMETERS[kind]:
            break
        change = np.abs(new - weights).max()
        weights = new
        if change < 1e-4:
            break
    place = system.place_error(covariance) * max(scatter, 1.0)
    return _RobustFit(transform, dx, dy, place, weights > 0, scatter)


def _with_residuals(fit: _RobustFit, reference: np.ndarray, error: np.ndarray) -> tuple[Transform, xr.Dataset]:
    """Tabulate the residuals of a fit, see `fit_robust`."""
    dx, dy, used = fit.dx, fit.dy, fit.used
    degrees = max(2 * np.count_nonzero(used) - PARAMETERS[fit.transform.kind], 1)
    columns = {
        "x": (reference[:, 0], "column in the reference"),
        "y": (reference[:, 1], "row in the reference"),
        "dx": (dx, "residual in x"),
        "dy": (dy, "residual in y"),
        "error": (np.broadcast_to(error, dx.shape) * 1.0, "standard error of a residual"),
        "place_error": (fit.place_error, "standard error of the transform there"),
    }
    table = {name: ("star", values, {"units": "pix", "long_name": text}) for name, (values, text) in columns.items()}
    residuals = xr.Dataset(
        table | {"used": ("star", used, {"long_name": "used in the fit"})},
        attrs={
            "kind": fit.transform.kind,
            "rms": float(np.sqrt((dx[used] ** 2 + dy[used] ** 2).sum() / degrees)),
            "scatter": fit.scatter,
            "stars_used": int(used.sum()),
            "place_error": float(np.sqrt(np.mean(fit.place_error**2))),
        },
    )
    return fit.transform, residuals
