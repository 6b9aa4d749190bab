// Links that hold prompt, settings and seed behind their #, which browsers send to no server.

import { fillForm, fromFragment, readForm, toFragment } from "./settings.js";

const byId = (id) => document.getElementById(id);

// answered: the values, with their seed, of the answer on the page, or null.
export async function share(form, answered) {
  const values = readForm(form);
  const request = (some) => toFragment({ ...some, seed: 0, compare: false });
  // The link to an answer that is on the page is to write the same one again.
  if (answered && request(answered) === request(values)) values.seed ??= answered.seed;
  history.replaceState(null, "", `#${toFragment(values)}`);
  byId("link").value = location.href;
  try {
    await navigator.clipboard.writeText(location.href);
    byId("link-box").hidden = true;
    byId("shared").textContent =
      "The link is copied. Prompt, settings and seed stand behind its #, which no server sees.";
  } catch {
    byId("link-box").hidden = false;
    byId("link").select();
    byId("shared").textContent = "The clipboard is closed to this page: copy the link from here.";
  }
}

// Fills in the form, and runs nothing.
export function openLink(form) {
  if (location.hash.length < 2) return;
  const { values, refused } = fromFragment(form, location.hash);
  fillForm(form, values);
  byId("schema-box").hidden = !form.elements.hold.checked;
  byId("settings").open = Object.keys(values).some((name) => !["prompt", "compare", "schema", "grounded"].includes(name));
  byId("shared").textContent = refused.length ?
    `Not understood in this link and left out: ${refused.join(", ")}` : "";
}
