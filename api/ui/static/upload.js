// Sends the file of a batch piece by piece, with progress, and goes where the service says.
"use strict";

document.getElementById("upload").addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.target, bar = document.getElementById("upload-progress"), problem = document.getElementById("upload-problem");
  const file = form.elements.file.files[0];
  const tell = (text) => {
    bar.hidden = true;
    problem.className = "note-box bad";
    problem.textContent = text;
  };
  if (file.size > Number(form.dataset.max)) return tell("The file is too large: make several of it.");
  const data = new FormData();
  data.append("purpose", "batch");
  data.append("file", file);
  const request = new XMLHttpRequest();
  request.open("POST", form.action);
  request.setRequestHeader("x-csrf-token", form.elements.csrf_token.value);
  request.setRequestHeader("hx-request", "true");
  request.responseType = "text";
  bar.hidden = false;
  request.upload.addEventListener("progress", (sent) => { if (sent.lengthComputable) bar.value = sent.loaded / sent.total; });
  request.addEventListener("load", () => {
    if (request.status === 200) location.assign(JSON.parse(request.responseText).go);
    else tell(new DOMParser().parseFromString(request.responseText, "text/html").body.textContent.trim() || `The service answered ${request.status}.`);
  });
  request.addEventListener("error", () => tell("The file could not be sent."));
  request.send(data);
});
