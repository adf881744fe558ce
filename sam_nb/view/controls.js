// Small makers of DOM elements.

// An element: names with a dash are attributes, others are properties.
function h(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(props))
    if (key.includes("-")) made.setAttribute(key, value);
    else if (key === "style") made.style.cssText = value;
    else made[key] = value;
  made.append(...children.filter(c => c !== null && c !== undefined));
  return made;
}

const pressed = (made, on) => {
  made.setAttribute("aria-pressed", String(!!on));
  return made;
};

const chip = (text, act, title = "") => h("button", {className: "samnb-chip", title, onclick: act, type: "button"}, text);

function dropdown(label, values, current, act) {
  const box = h(
    "select",
    {className: "samnb-select", title: label, "aria-label": label, onchange: () => act(box.value)},
    ...values.map(([value, text]) => h("option", {value}, text)),
  );
  box.value = current;
  return box;
}

// `act` runs while the slider moves, `done` when it is released.
function slider(label, low, high, step, value, act, done = () => {}) {
  const shown = h("output", {}, String(value));
  const box = h("input", {
    type: "range",
    min: low,
    max: high,
    step,
    "aria-label": label,
    oninput: () => {
      shown.value = box.value;
      act(Number(box.value));
    },
    onchange: () => done(Number(box.value)),
  });
  box.value = value;
  const made = h("label", {className: "samnb-slider"}, label, box, shown);
  made.set = v => {
    box.value = v;
    shown.value = String(v);
  };
  return made;
}

const rgb = colour => `rgb(${colour.join(",")})`;
const formatNumber = v => (typeof v === "number" && !Number.isInteger(v) ? v.toFixed(2) : String(v));

// A live widget hides the static picture of the saved notebook.
const withoutFallback = name => h("style", {}, name ? `[data-samnb="${name}"] { display: none; }` : "");
