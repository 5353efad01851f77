// t = C RN²/B with C = 1/((1+p)² - 1); what reading adds after t seconds is √(1 + RN²/(B t)) - 1.
const background = Number(sky.value) + darks[Math.round(warmth.value - warmth.start)];   // computed for each degree
const allowed = penalty.value / 100;
const needs = 1 / ((1 + allowed) * (1 + allowed) - 1);
const which = isos.indexOf(Number(iso.value));
const added = (seconds) => 100 * (Math.sqrt(1 + noises[which] ** 2 / (background * seconds)) - 1);
const shortest = noises.map((noise) => needs * noise * noise / background);
curve.data = {length: lengths, added: lengths.map(added)};
point.data = {length: [shortest[which]], added: [100 * allowed]};
bars.data = {iso: names, seconds: shortest};
level.location = 100 * allowed;
const write = (seconds) => seconds < 10 ? seconds.toFixed(1) : seconds.toFixed(0);
said.text = `At ${iso.title} ${iso.value} with ${noises[which].toFixed(2)} e⁻ read noise, under a background of `
  + `${Number(background.toPrecision(3))} e⁻/s a pixel: subs of <b>${write(shortest[which])} s</b> or longer. `
  + `Longer ones gain at most ${penalty.value} % more.`;
