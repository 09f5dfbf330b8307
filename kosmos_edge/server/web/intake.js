// How pictures come in: chosen, dropped, pasted, from the camera, or one of our examples.

const at = (id) => document.getElementById(id);

/** onFile(file): a picture file. onProblem(text): why there is none; "": forget the last problem. */
export function startIntake(onFile, onProblem) {
  const take = (files, where) => {
    const file = [...files].find((one) => one.type.startsWith("image/")) ?? [...files][0];
    if (file) onFile(file);
    else onProblem(`There is no picture ${where}.`);
    if (files.length > 1) onProblem(`Only ${file.name} was taken: one picture at a time.`);
  };
  const chosen = (event) => {
    if (event.target.files.length) take(event.target.files, "here");
    event.target.value = ""; // the same file can be chosen again
  };
  at("file").addEventListener("change", chosen);
  at("shot").addEventListener("change", chosen);
  for (const button of document.querySelectorAll("[data-do=choose]")) button.addEventListener("click", () => at("file").click());
  startDrop(take);
  document.addEventListener("paste", (event) => {
    const files = event.clipboardData.files;
    const typing = event.target.closest?.("input, textarea");
    if (typing && !files.length) return;
    event.preventDefault();
    take(files, "in the clipboard");
  });
  for (const button of document.querySelectorAll("[data-example]")) {
    button.addEventListener("click", async () => {
      try {
        const path = button.dataset.example;
        const blob = await (await fetch(path)).blob();
        onFile(new File([blob], path.split("/").pop(), { type: blob.type }));
      } catch {
        onProblem("The example cannot be loaded: the server cannot be reached.");
      }
    });
  }
  startCamera(onFile);
}

function startDrop(take) {
  const dragging = (on) => document.body.classList.toggle("dragging", on);
  const hasFiles = (event) => [...event.dataTransfer.types].includes("Files");
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    dragging(true);
  });
  addEventListener("dragleave", (event) => event.relatedTarget || dragging(false));
  addEventListener("drop", (event) => {
    dragging(false);
    if (!event.dataTransfer.files.length && event.target.closest?.("input, textarea")) return;
    event.preventDefault();
    take(event.dataTransfer.files, "in what was dropped");
  });
}

function startCamera(onFile) {
  const [dialog, video, problem] = [at("camera"), at("video"), at("camera-error")];
  const stop = () => {
    for (const track of video.srcObject?.getTracks() ?? []) track.stop();
    video.srcObject = null;
  };
  dialog.addEventListener("close", stop);
  video.addEventListener("loadeddata", () => (at("shoot").disabled = false)); // there is a frame to take
  at("camera-close").addEventListener("click", () => dialog.close());
  for (const button of document.querySelectorAll("[data-do=camera]")) {
    button.addEventListener("click", async () => {
      if (!navigator.mediaDevices) {
        at("shot").click(); // not localhost and not https: the system's own camera, where there is one
        return;
      }
      problem.hidden = true;
      at("shoot").disabled = true;
      dialog.showModal();
      try {
        const media = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
        video.srcObject = media;
        if (!dialog.open) stop(); // closed while the browser asked
      } catch (error) {
        const why = { NotAllowedError: "the browser does not allow it", NotFoundError: "there is none" }[error.name];
        problem.textContent = `The camera cannot be used: ${why ?? error.message}.`;
        problem.hidden = false;
      }
    });
  }
  at("shoot").addEventListener("click", () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob(
      (blob) => {
        dialog.close();
        onFile(new File([blob], "camera.jpg", { type: "image/jpeg" }));
      },
      "image/jpeg",
      0.92,
    );
  });
}

/** A picture of a file: {name, url, uri, width, height, views}; throws if the browser cannot show it. */
export async function openPicture(file) {
  const url = URL.createObjectURL(file);
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
    if (!image.naturalWidth) throw new Error("without a size");
  } catch (error) {
    URL.revokeObjectURL(url);
    throw error;
  }
  const uri = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
  return { name: file.name, url, uri, width: image.naturalWidth, height: image.naturalHeight, views: {}, box: null };
}
