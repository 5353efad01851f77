// Draws the charts of a page, each when it comes near the view, in the colours that suit what lies behind it.
(() => {
  if (window.workbenchDraw) return;
  const DARK = %(dark)s;
  const charts = [];
  const luminance = (colour) => {
    const [red, green, blue, alpha] = (colour.match(/[\d.]+/g) ?? []).map(Number);
    return alpha === 0 || red === undefined ? null : (0.299 * red + 0.587 * green + 0.114 * blue) / 255;
  };
  const isDark = (element) => {           // the page's own colour decides, not what the reader prefers elsewhere
    for (let at = element; at; at = at.parentElement) {
      const light = luminance(getComputedStyle(at).backgroundColor);
      if (light !== null) return light < 0.5;
    }
    return false;
  };
  const recoloured = (part, dark) => {    // a palette is data: it stays
    if (!dark) return structuredClone(part);
    if (typeof part === 'string') return Object.entries(DARK).reduce((text, [from, to]) => text.replaceAll(from, to), part);
    if (Array.isArray(part)) return part.map((one) => recoloured(one, dark));
    if (part === null || typeof part !== 'object') return part;
    const fresh = Object.entries(part).map(([key, value]) => [key, recoloured(value, dark && key !== 'palette')]);
    return Object.fromEntries(fresh);
  };
  const draw = async (chart) => {
    const dark = isDark(chart.places[0]);
    if (chart.dark === dark) return;
    chart.dark = dark;
    for (const manager of chart.managers) manager.clear();
    for (const place of chart.places) place.replaceChildren();
    chart.managers = await Bokeh.embed.embed_items(recoloured(chart.docs, dark), chart.items);
    for (const place of chart.places) place.dataset.drawn = dark ? 'dark' : 'light';
  };
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) {
      near.unobserve(entry.target);
      draw(charts.find((chart) => chart.places.includes(entry.target)));
    }
  }, {rootMargin: '600px'});
  window.workbenchDraw = (docs, items) => {
    const ids = items.flatMap((item) => Object.values(item.roots));
    const places = ids.map((id) => document.getElementById(id)).filter(Boolean);
    if (!places.length) return;
    charts.push({docs, items, places, managers: [], dark: null});
    near.observe(places[0]);
  };
  const again = () => { for (const chart of charts) if (chart.dark !== null) draw(chart); };
  window.matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => setTimeout(again));
  // a page's own switch changes a class or an attribute of its root
  new MutationObserver(() => setTimeout(again)).observe(document.documentElement, {attributes: true});
})();
