// What scrolls by itself can be reached with the keyboard.
const reachable = () => {
  for (const part of document.querySelectorAll('.course-figure, .cell_output, .cell_output .output, .math-block')) {
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0; else part.removeAttribute('tabindex');
  }
};
new ResizeObserver(reachable).observe(document.documentElement);

// Draws the figures of the course, whose data stand in the page, with the script that all charts share.
document.addEventListener('DOMContentLoaded', () => {
  const figures = [...document.querySelectorAll('.course-figure')];
  if (!figures.length) return;
  const here = document.querySelector('script[src*="_static/site.js"]').src;
  const load = (name) => new Promise((loaded) => {
    const script = document.createElement('script');
    script.src = new URL(`../charts/${name}`, here).href;
    script.onload = loaded;
    document.head.append(script);
  });
  window.workbenchCharts ??= load('workbench-charts.js');
  window.workbenchCharts.then(() => load('panel.js')).then(() => {
    for (const figure of figures) {
      const [docs, items] = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
      workbenchDraw(docs, items);
    }
  });
});
