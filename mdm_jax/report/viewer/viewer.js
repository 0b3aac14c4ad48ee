"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const data = JSON.parse(byId("data").textContent);
  const { board, panels, calls } = data;
  const numCalls = calls.length ? calls[calls.length - 1] + 1 : 0;
  const hasConfidence = panels.some((panel) => panel.events.some((event) => event[4] !== null));
  let frame = calls.length; // frame f shows what is there after call calls[f - 1]; frame 0 what was given
  let timer = null;
  let colour = "step";

  // What a page says of a position.

  const places = new Map();
  if (board.cells) {
    board.cells.forEach((row, r) => row.forEach((position, c) => {
      if (position < 0) return;
      const head = board.rows[r] || `row ${r + 1}`;
      places.set(position, `${head}, ${board.columns[c] || `column ${c + 1}`}`);
    }));
  }
  const place = (position) => {
    if (places.has(position)) return places.get(position);
    const section = board.sections.filter(([, first]) => first <= position).pop();
    return section ? `${section[0]} ${position - section[1] + 1}` : `position ${position + 1}`;
  };
  const shownText = (text) => text.replace(/\n/g, "\u21b5").replace(/\t/g, "\u21e5") || "\u2205";
  const percent = (share) => `${(100 * share).toFixed(share > 0.995 && share < 1 ? 2 : 0)}%`;

  function cellsAt(panel, call) {
    const cells = Array.from({ length: data.length }, () => ({ kind: "masked", text: "", backs: 0 }));
    for (const [position, text] of panel.given) cells[position] = { kind: "given", text, backs: 0 };
    for (const [at, position, text, isWrong, probability, entropy] of panel.events) {
      if (at > call) break;
      const backs = cells[position].backs + (text === null ? 1 : 0);
      cells[position] = text === null
        ? { kind: "back", text: "", backs, call: at }
        : { kind: "shown", text, backs, call: at, isWrong: Boolean(isWrong), probability, entropy };
    }
    if (call === numCalls - 1) for (const position of panel.missing) cells[position].isWrong = true;
    return cells;
  }

  function told(panel, position, cell) {
    const words = [];
    if (cell.kind === "given") return "given";
    if (cell.kind === "masked") words.push("masked");
    if (cell.kind === "back") words.push(`taken back at call ${cell.call + 1}`);
    if (cell.kind === "shown") words.push(`call ${cell.call + 1}`);
    if (cell.probability != null) words.push(`probability ${percent(cell.probability)}`);
    if (cell.entropy != null) words.push(`entropy ${cell.entropy.toFixed(2)} nats`);
    if (cell.isWrong) {
      const right = panel.solution && panel.solution[position];
      words.push(right === null || right === undefined ? "wrong" : `wrong, should be ${shownText(right)}`);
    }
    if (cell.kind === "shown" && cell.backs) words.push(`taken back ${cell.backs === 1 ? "once" : `${cell.backs} times`} before`);
    return words.join(", ");
  }

  // The panels, made once.

  function make(tag, className, text) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  }

  function makeCell(panel, tag) {
    const node = make(tag, "cell"), text = make("span"), note = make("span", "unseen");
    node.append(text, note);
    return { node, text, note, key: "" };
  }

  function makeTable(panel, cells) {
    const table = make("table", board.columns.length ? "named" : "");
    if (board.columns.length) {
      const head = make("tr");
      if (board.rows.length) head.append(make("td"));
      for (const name of board.columns) {
        const th = make("th", "", name);
        th.setAttribute("scope", "col");
        head.append(th);
      }
      table.append(head);
    }
    const [boxRows, boxColumns] = board.box || [0, 0];
    board.cells.forEach((row, r) => {
      const tr = make("tr");
      if (board.rows.length) {
        const th = make("th", "", board.rows[r]);
        th.setAttribute("scope", "row");
        tr.append(th);
      }
      row.forEach((position, c) => {
        if (position < 0) return tr.append(make("td"));
        const cell = makeCell(panel, "td");
        cell.lines = [
          boxRows && r % boxRows === 0 ? "top" : "", boxColumns && c % boxColumns === 0 ? "left" : "",
          boxRows && r === board.cells.length - 1 ? "bottom" : "", boxColumns && c === row.length - 1 ? "right" : "",
        ].filter(Boolean);
        cells[position] = cell;
        tr.append(cell.node);
      });
      table.append(tr);
    });
    return [table];
  }

  function makeLine(panel, cells) {
    const parts = board.sections.length ? board.sections : [["", 0]];
    return parts.flatMap(([name, first], i) => {
      const list = make("ol", "flow");
      list.setAttribute("role", "list");
      const end = i + 1 < parts.length ? parts[i + 1][1] : data.length;
      for (let position = first; position < end; position += 1) {
        const item = make("li"), cell = makeCell(panel, "span");
        Object.assign(cell, { lines: [], item });
        cells[position] = cell;
        item.append(cell.node);
        list.append(item);
      }
      return name ? [make("p", "section", name), list] : [list];
    });
  }

  const drawn = panels.map((panel, i) => {
    const section = make("section", "panel"), head = make("h2", "", panel.name);
    head.id = `panel-${i}`;
    section.setAttribute("aria-labelledby", head.id);
    const tally = make("p", "tally"), box = make("div", "board"), cells = [];
    box.setAttribute("role", "group");
    box.setAttribute("aria-labelledby", head.id);
    box.setAttribute("tabindex", "0");
    box.append(...(board.cells ? makeTable(panel, cells) : makeLine(panel, cells)));
    section.append(head, tally, box);
    byId("panels").append(section);
    cells.forEach((cell, position) => cell.node.addEventListener("click", () => {
      const event = panel.events.filter((event) => event[1] === position && event[2] !== null).pop();
      if (event) go(calls.indexOf(event[0]) + 1, `${panel.name}, ${place(position)}: ${shownText(event[2])}, ${told(panel, position, cellsAt(panel, event[0])[position])}.`);
    }));
    return { panel, tally, cells };
  });
  byId("panels").className = panels.length > 1 ? "" : "alone";

  // One frame.

  function strength(cell) {
    if (colour === "confidence") return cell.probability;
    return numCalls > 1 ? cell.call / (numCalls - 1) : 0;
  }

  function draw() {
    const call = frame ? calls[frame - 1] : -1;
    byId("panels").classList.toggle("plain", colour === "none");
    for (const { panel, tally, cells } of drawn) {
      const now = cellsAt(panel, call);
      cells.forEach((cell, position) => {
        const state = now[position];
        const t = state.kind === "shown" ? strength(state) : 0;
        const classes = ["cell", state.kind, ...cell.lines];
        if (state.kind === "shown" && t == null) classes.push("unknown");
        if (state.isWrong) classes.push("wrong");
        if (frame && state.call === call) classes.push("now");
        if (data.differs && data.differs.position === position) classes.push("differs");
        const note = told(panel, position, state);
        const key = JSON.stringify([classes, t, state.text, note]);
        if (key === cell.key) return;
        cell.key = key;
        cell.node.className = classes.join(" ");
        cell.node.style.setProperty("--t", String(t == null ? 0 : t));
        cell.node.setAttribute("title", `${place(position)}: ${note}`);
        const isEmpty = state.kind === "masked" || state.kind === "back";
        cell.text.textContent = isEmpty ? "" : board.cells ? state.text : shownText(state.text);
        cell.note.textContent = ` ${note}`;
        if (cell.item) cell.item.className = state.text.endsWith("\n") ? "ends" : "";
      });
      const count = (test) => now.filter(test).length;
      const words = [`${count((c) => c.kind === "shown")} of ${panel.targets} revealed`];
      if (panel.solution) words.push(`${count((c) => c.isWrong)} wrong`);
      const backs = now.reduce((sum, cell) => sum + cell.backs, 0);
      if (panel.corrects) words.push(`${backs} taken back so far`);
      tally.textContent = words.join(", ");
    }
    const at = byId("at");
    at.max = String(calls.length);
    at.value = String(frame);
    at.setAttribute("aria-valuetext", frame ? `call ${call + 1} of ${numCalls}` : "before the first call");
    byId("from").textContent = { step: "first call", confidence: "unsure, 0%", none: "" }[colour];
    byId("to").textContent = { step: `call ${numCalls}`, confidence: "sure, 100%", none: "" }[colour];
    byId("key").hidden = colour === "none";
  }

  function describe() {
    if (!frame) return "What is given, before the first call.";
    const call = calls[frame - 1];
    const parts = panels.map((panel) => {
      const events = panel.events.filter((event) => event[0] === call);
      const written = events.filter((event) => event[2] !== null);
      const back = events.length - written.length;
      const each = written.map((e) => `${place(e[1])} is ${shownText(e[2])}${e[3] ? " (wrong)" : ""}`);
      const words = written.length > 3 ? [`${written.length} positions written`] : each;
      if (back) words.push(`${back} taken back`);
      return `${panel.name}: ${words.join("; ") || "nothing"}.`;
    });
    return `Call ${call + 1} of ${numCalls}. ${parts.join(" ")}`;
  }

  function go(to, words) {
    frame = Math.max(0, Math.min(calls.length, to));
    draw();
    byId("said").textContent = words || describe();
  }

  // Playing.

  function pause() {
    if (timer !== null) clearInterval(timer);
    timer = null;
    byId("play").textContent = "Play";
    byId("said").setAttribute("aria-live", "polite");
  }

  function play() {
    byId("play").textContent = "Pause";
    byId("said").setAttribute("aria-live", "off"); // a screen reader could not keep up
    timer = setInterval(() => {
      if (frame + 1 >= calls.length) pause();
      go(frame + 1);
    }, 1000 / Number(byId("speed").value));
  }

  function toggle() {
    if (timer !== null) return pause();
    if (frame === calls.length) go(0);
    play();
  }

  const moved = (to) => () => { pause(); go(to()); };
  const wrongAt = [...new Set(panels.flatMap((panel) => panel.events.filter((e) => e[3]).map((e) => e[0])))].sort((a, b) => a - b);
  const toWrong = moved(() => {
    const call = frame ? calls[frame - 1] : -1;
    const found = wrongAt.find((at) => at > call);
    return calls.indexOf(found === undefined ? wrongAt[0] : found) + 1;
  });
  const toDiffer = moved(() => calls.indexOf(data.differs.call) + 1);
  function recolour(to) {
    colour = to;
    byId("colour").value = to;
    draw();
  }

  const actions = {
    first: moved(() => 0), back: moved(() => frame - 1), next: moved(() => frame + 1), last: moved(() => calls.length),
    play: toggle, "to-differ": toDiffer, "to-wrong": toWrong,
  };
  for (const [id, action] of Object.entries(actions)) byId(id).addEventListener("click", action);
  byId("at").addEventListener("input", moved(() => Number(byId("at").value)));
  byId("colour").addEventListener("change", () => recolour(byId("colour").value));
  byId("speed").addEventListener("change", () => { if (timer !== null) { pause(); play(); } });
  byId("to-differ").hidden = !data.differs;
  byId("to-wrong").hidden = !wrongAt.length;
  for (const option of byId("colour").options) {
    if (option.value === "confidence") option.disabled = option.hidden = !hasConfidence;
  }

  const keys = {
    " ": toggle, ArrowLeft: actions.back, ArrowRight: actions.next, Home: actions.first, End: actions.last,
    d: () => data.differs && toDiffer(), w: () => wrongAt.length && toWrong(),
    c: () => recolour({ step: hasConfidence ? "confidence" : "none", confidence: "none", none: "step" }[colour]),
  };
  document.addEventListener("keydown", (event) => {
    const tag = event.target && event.target.tagName, key = event.key.length > 1 ? event.key : event.key.toLowerCase();
    const isOwn = tag === "SELECT" || (key === " " && (tag === "BUTTON" || tag === "SUMMARY")) || (tag === "INPUT" && key.length > 1);
    if (!keys[key] || isOwn || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[key]();
  });

  // What does not change.

  function sayDifference() {
    if (panels.length < 2) return "";
    const words = [data.parting === null ? "The orders are the same." : `The orders part at call ${data.parting + 1}.`];
    if (!data.differs) return `${words[0]} They end in the same tokens.`;
    const each = data.differs.said.map(([text, call], i) =>
      `${panels[i].name} ${call === null ? "leaves it empty" : `has ${shownText(text)} since call ${call + 1}`}`);
    return `${words[0]} The first position on which they disagree is ${place(data.differs.position)}: ${each.join("; ")}.`;
  }
  byId("differ").textContent = sayDifference();
  const rows = [data.statistics.heads, ...data.statistics.rows];
  rows.forEach((row, r) => {
    const tr = make("tr");
    row.forEach((value, c) => {
      const node = make(r && c ? "td" : "th", "", value);
      if (!(r && c)) node.setAttribute("scope", r ? "row" : "col");
      tr.append(node);
    });
    byId("statistics").append(tr);
  });
  for (const [term, meaning] of data.meanings) byId("meanings").append(make("dt", "", term), make("dd", "", ` ${meaning}`));
  go(frame, `${numCalls} network calls. ${panels.map((panel) => panel.name).join(", ")}: the last step is shown.`);
})();
