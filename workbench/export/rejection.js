// The decisions were computed beforehand: a bit for each frame, by method, number of frames and strength.
const count = Number(frames.value), bright = strength.value;
const values = noises.slice(0, count).map((noise, i) => sky + sigma * noise + (i === touched ? bright * sigma : 0));
const mean = (mask, list) => {
  let sum = 0, kept = 0;
  for (let i = 0; i < list.length; i++) if (!(mask >> i & 1)) { sum += list[i]; kept++; }
  return [sum / kept, kept];
};
const mask = decided[method.value + ' ' + count][bright];
const [result, kept] = mean(mask, values);
const numbers = values.map((_, i) => i + 1);
const pick = (wanted) => numbers.filter((_, i) => (mask >> i & 1) === wanted);
left.data = {frame: pick(0), value: pick(0).map((i) => values[i - 1])};
// one more outside of the view: a legend shows the marker of a first point only
gone.data = {frame: [...pick(1), -9], value: [...pick(1).map((i) => values[i - 1]), sky]};
outcome.location = result;
across.end = count + 1;
up.end = Math.max(...values) + 2 * sigma;
const off = strengths.map((one) => {
  const list = noises.slice(0, count).map((noise, i) => sky + sigma * noise + (i === touched ? one * sigma : 0));
  return (mean(decided[method.value + ' ' + count][one], list)[0] - sky) / sigma;
});
curve.data = {strength: strengths, off};
here.data = {strength: [bright], off: [off[bright]]};
const lost = count - kept;
said.text = `<b>${method.value}</b> keeps ${kept} of ${count} frames: ${result.toFixed(1)} e⁻ where ${sky} is true, `
  + `noise of the mean ${(sigma / Math.sqrt(kept)).toFixed(1)}. `
  + (mask >> touched & 1 ? 'The satellite is out' : 'The satellite is in')
  + (lost > (mask >> touched & 1) ? `, and ${lost - (mask >> touched & 1)} good ones with it.` : '.');
