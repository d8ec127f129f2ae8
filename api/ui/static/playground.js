// Asks every chosen model at once and shows each answer as it comes; the explanation is rendered by the service.
"use strict";

const play = document.getElementById("play");
let running = [];

document.getElementById("more").addEventListener("click", () => {
  const asked = document.querySelectorAll(".asked");
  if (asked.length >= Number(play.dataset.max)) return;
  const last = asked[asked.length - 1];
  const made = last.cloneNode(true);
  const select = made.querySelector("select");
  select.setAttribute("aria-label", `Model ${asked.length + 1}`);
  select.selectedIndex = Math.min(last.querySelector("select").selectedIndex + 1, select.options.length - 1);
  if (!made.querySelector("button")) {
    const drop = document.createElement("button");
    drop.type = "button";
    drop.className = "small plain";
    drop.textContent = "Remove";
    made.append(drop);
  }
  made.querySelector("button").addEventListener("click", () => { made.remove(); document.getElementById("more").disabled = false; });
  last.after(made);
  document.getElementById("more").disabled = asked.length + 1 >= Number(play.dataset.max);
  select.focus();
});

play.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) play.requestSubmit();
});
document.getElementById("stop").addEventListener("click", () => running.forEach((one) => one.abort()));

play.addEventListener("submit", async (event) => {
  event.preventDefault();
  running.forEach((one) => one.abort());
  running = [];
  const panes = document.getElementById("panes");
  panes.replaceChildren();
  const models = [...play.querySelectorAll("select[name=model]")].map((select) => select.value);
  document.getElementById("stop").hidden = false;
  await Promise.allSettled(models.map((model, index) => ask(model, index, panes)));
  document.getElementById("stop").hidden = true;
});

function formFor(model) {
  const data = new URLSearchParams(new FormData(play));
  data.delete("model");
  data.set("model", model);
  return data;
}

async function ask(model, index, panes) {
  const pane = document.getElementById("pane").content.cloneNode(true).firstElementChild;
  pane.querySelector("h2").textContent = model;
  panes.append(pane);
  const answer = pane.querySelector(".answer"), took = pane.querySelector(".took");
  const control = new AbortController();
  running.push(control);
  const began = performance.now(), data = formFor(model);
  try {
    const response = await fetch(play.action, { method: "POST", body: data, signal: control.signal });
    if (!response.ok) throw new Error(await wordsOf(response));
    let told = null;
    for await (const part of events(response)) {
      if (part.error) throw new Error(part.error.message);
      const delta = part.choices && part.choices[0] && part.choices[0].delta;
      if (delta && delta.content) answer.append(delta.content);
      if (part.consilium) told = part.consilium;
    }
    took.textContent = `${Math.round(performance.now() - began)} ms`;
    if (!answer.textContent) answer.textContent = "(an empty answer)";
    if (told) await explain(pane, data, told, index);
  } catch (error) {
    const note = document.createElement("div");
    note.className = "note-box bad";
    note.setAttribute("role", "alert");
    note.textContent = error.name === "AbortError" ? "Stopped." : error.message;
    answer.after(note);
  } finally {
    pane.querySelector(".spin").remove();
    pane.dataset.done = "yes";
  }
}

async function wordsOf(response) {
  try { return (await response.json()).error.message; } catch { return `the service answered ${response.status}`; }
}

async function explain(pane, data, told, index) {
  data.set("told", JSON.stringify(told));
  data.set("pane", String(index));
  const response = await fetch("/admin/playground/explained", { method: "POST", body: data, headers: { "hx-request": "true" } });
  pane.querySelector(".why").innerHTML = await response.text();
}

// Server-sent events, as far as the API sends them: lines of data, comments, an event "error".
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const lines = rest.split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data:")) continue;
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}
