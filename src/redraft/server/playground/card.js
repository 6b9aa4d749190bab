// What the model says of itself: its name, what it is for and what not, and examples to click.

const byId = (id) => document.getElementById(id);

// choose(text): an example was clicked.
export function showCard({ id, card = {} }, choose) {
  const { purpose = "", limits = "", examples = [] } = card;
  byId("model").textContent = `model ${id}`;
  byId("purpose").textContent = purpose;
  byId("limits").textContent = limits;
  byId("card").hidden = !purpose && !limits;
  byId("examples").hidden = !examples.length;
  byId("examples").replaceChildren(...examples.map((text) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "small";
    button.textContent = text;
    button.title = text;
    button.addEventListener("click", () => choose(text));
    return button;
  }));
}
