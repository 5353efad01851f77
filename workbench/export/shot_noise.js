// Takes exposures of the ideal detector: `what` is take, slide (another length) or again (start over).
const at = Math.round(slider.value / 0.5) - 1;
const mean = rate * slider.value;
const random = () => {                       // mulberry32; its state lives in the tags of the source
  let s = (snr.tags[0] = (snr.tags[0] + 0x6D2B79F5) | 0);
  s = Math.imul(s ^ (s >>> 15), s | 1);
  s ^= s + Math.imul(s ^ (s >>> 7), s | 61);
  return ((s ^ (s >>> 14)) >>> 0) / 4294967296;
};
const poisson = (expected) => {              // arrivals at random times: exponential gaps until the time is up
  let count = -1;
  for (let time = 0; time < expected; count++) time -= Math.log(1 - random());
  return count;
};
const data = {};
for (const key of ['taken', 'mean', 'square', 'snr', 'low', 'high']) data[key] = Array.from(snr.data[key]);
data.exposure = snr.data.exposure;
let shown = what === 'slide' || what === 'again' ? [] : Array.from(history.data.count);
if (what === 'again') for (const key of ['taken', 'mean', 'square', 'snr', 'low', 'high'])
  data[key].fill(key === 'snr' || key === 'low' || key === 'high' ? NaN : 0);
let count = 0;
for (let i = 0; i < times; i++) {
  count = poisson(mean);
  shown.push(count);
  data.taken[at] += 1;                       // Welford's running mean and sum of squared deviations
  const step = count - data.mean[at];
  data.mean[at] += step / data.taken[at];
  data.square[at] += step * (count - data.mean[at]);
}
const n = data.taken[at];
if (n > 1 && data.square[at] > 0) {
  const ratio = data.mean[at] / Math.sqrt(data.square[at] / (n - 1));
  const error = ratio * Math.sqrt(1 / (n * ratio * ratio) + 0.5 / (n - 1));
  data.snr[at] = ratio; data.low[at] = ratio - error; data.high[at] = ratio + error;
}
shown = shown.slice(-length);
particles.data = {x: Array.from({length: count}, random), y: Array.from({length: count}, random)};
history.data = {number: shown.map((_, i) => i + 1), count: shown};
snr.data = data;
level.location = mean; band.bottom = mean - Math.sqrt(mean); band.top = mean + Math.sqrt(mean);
y_range.end = 1.45 * mean + 20;
let live = 'needs two exposures';
if (n > 1) live = data.snr[at].toFixed(1) + ' ± ' + ((data.high[at] - data.low[at]) / 2).toFixed(1);
readout.text = '<b>' + count + '</b> particles in this exposure, ' + mean + ' expected. Live SNR of ' + n
  + ': <b>' + live + '</b>, expected √N = <b>' + Math.sqrt(mean).toFixed(1) + '</b>';
