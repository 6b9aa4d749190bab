// What the model says of itself: its name, what it is for and what not, the fields it knows, and examples to click.

const byId = (id) => document.getElementById(id);

// choose(text): an example was clicked.
export function showCard({ id, card = {} }, choose) {
  const { purpose = "", limits = "", examples = [], example_names: names = [], fields = {} } = card;
  byId("model").textContent = `model ${id}`;
  byId("purpose").textContent = purpose;
  byId("limits").textContent = limits;
  byId("card").hidden = !purpose && !limits;
  byId("examples").hidden = !examples.length;
  byId("examples").replaceChildren(...examples.map((text, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "small";
    button.textContent = names[at] ?? text;
    button.title = text;
    button.addEventListener("click", () => choose(text));
    return button;
  }));
  byId("known").hidden = !Object.keys(fields).length;
  byId("known-fields").replaceChildren(...Object.entries(fields).flatMap(([kind, known]) => [
    element("dt", kind), element("dd", known.join(", ")),
  ]));
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}
