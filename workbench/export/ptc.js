// A pair's variance is μ/g + (σ_R/g)² + 1/12; one frame's holds (PRNU μ)² as well.  Each scatters by √(2/(N-1)).
// The fit: variance = a + μ/g, weights 1/variance², below 70 % of saturation.
const gain = Number(slope.value), read = noise.value, prnu = spread.value / 100;
const scatter = Math.sqrt(2 / (pixels - 1));
const pair = [], alone = [];
for (let i = 0; i < levels.length; i++) {
  const true_ = levels[i] / gain + (read / gain) ** 2 + 1 / 12;
  pair.push(true_ * (1 + scatter * first[i]));
  alone.push((true_ + (prnu * levels[i]) ** 2) * (1 + scatter * second[i]));
}
const fit = (variance) => {
  let s = 0, sx = 0, sy = 0, sxx = 0, sxy = 0;
  for (let i = 0; i < levels.length; i++) {
    if (levels[i] > 0.7 * saturation) continue;
    const w = 1 / variance[i] ** 2;
    s += w; sx += w * levels[i]; sy += w * variance[i]; sxx += w * levels[i] ** 2; sxy += w * levels[i] * variance[i];
  }
  const k = (s * sxy - sx * sy) / (s * sxx - sx * sx);
  return {k, offset: (sy - k * sx) / s, error: Math.sqrt(s / (s * sxx - sx * sx)) * scatter};
};
const good = fit(pair), bad = fit(alone);
const floor = (read / gain) ** 2 + 1 / 12;
points.data = {signal: levels, pair, alone, gain_pair: levels.map((m, i) => m / (pair[i] - floor)),
               gain_alone: levels.map((m, i) => m / (alone[i] - floor))};
line.data = {signal: levels, variance: levels.map((m) => good.offset + good.k * m)};
truth.location = gain;
gains.end = 1.5 * gain;
const written = (one) => `${(1 / one.k).toPrecision(4)} ± ${(one.error / one.k ** 2).toPrecision(2)}`;
said.text = `True gain <b>${gain} e⁻/ADU</b>. The line through the pairs gives <b>${written(good)}</b>, `
  + `through single frames ${written(bad)}.`;
