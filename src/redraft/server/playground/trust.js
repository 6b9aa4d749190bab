// The trust mark of an answer: one number where the model is calibrated, and what is known of each of its values.

const LOW = 0.9;
const UNSURE = 0.5; // nats of a value's least certain token, where there is no number

// spans: where the texts of a grounded answer stand. choose(start, end): a value's place in the prompt is asked for.
export function showTrust(section, trust, spans = {}, choose = null) {
  section.hidden = !trust;
  if (!trust) return;
  const { probability: right } = trust;
  const parts = [
    right === undefined ? "How probably it is right is not known: the model is not calibrated."
      : `Right with a probability of ${percent(right)}.`,
    ...(trust.settled === false ? ["It took all its steps."] : []),
    ...(trust.known_prompt === false ? ["The prompt is not like those that the model was trained on."] : []),
  ];
  const line = element("p", parts.join(" "));
  line.classList.toggle("doubt", right < LOW || trust.settled === false || trust.valid === false);
  const list = document.createElement("ul");
  list.append(...trust.values.map((value) => valueItem(value, spans[value.path.join("/")] ?? value.places?.[0], choose)));
  section.replaceChildren(line, list);
}

function valueItem(value, place, choose) {
  const isLost = value.places?.length === 0;
  const { probability: right, max_entropy: entropy } = value;
  const name = value.path.join(".");
  const parts = [
    ...(place && choose ? [] : [name]),
    ...(value.places ? [isLost ? "not in the text" : "in the text"] : []),
    ...(right === undefined ? [] : [percent(right)]),
  ];
  const item = element("li", parts.join(" · "));
  if (place && choose) {
    const link = element("button", name);
    link.type = "button";
    link.className = "link";
    link.title = "Show where it stands in the prompt";
    link.addEventListener("click", () => choose(...place));
    item.prepend(link, " · ");
  }
  item.classList.toggle("doubt", isLost || (right === undefined ? entropy > UNSURE : right < LOW));
  return item;
}

const percent = (share) => `${Math.floor(share * 100)} %`;

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}
