// A document for node: the tree that a page's HTML parser gave, with as much of the DOM as the viewer's script uses.
"use strict";
class Node {
  constructor(tag, attributes = {}) {
    Object.assign(this, { tagName: tag.toUpperCase(), attributes: { ...attributes }, children: [], listeners: {} });
    this.className = attributes.class || "";
    this.id = attributes.id || "";
    this.value = attributes.value || "";
    this.hidden = this.disabled = false;
    this.own = "";
    this.style = { setProperty: (name, value) => { this.style[name] = value; } };
  }
  get classList() {
    const words = () => this.className.split(" ").filter(Boolean);
    return {
      toggle: (name, on) => { this.className = [...words().filter((word) => word !== name), ...(on ? [name] : [])].join(" "); },
      contains: (name) => words().includes(name),
    };
  }
  get textContent() { return this.own + this.children.map((child) => child.textContent).join(""); }
  set textContent(text) { this.own = String(text); this.children = []; }
  get options() { return this.children; }
  append(...nodes) { this.children.push(...nodes); }
  setAttribute(name, value) { this.attributes[name] = String(value); }
  getAttribute(name) { return name in this.attributes ? this.attributes[name] : null; }
  addEventListener(type, listener) { (this.listeners[type] = this.listeners[type] || []).push(listener); }
  dispatch(type, event = {}) {
    event = { target: this, preventDefault() { this.isPrevented = true; }, ...event };
    for (const listener of this.listeners[type] || []) listener(event);
    return event;
  }
  click() { this.dispatch("click"); }
  walk() { return [this, ...this.children.flatMap((child) => child.walk())]; }
  querySelectorAll(selector) { return this.walk().filter((node) => node.classList.contains(selector.slice(1))); }
}
function build([tag, attributes, children]) {
  const node = new Node(tag, attributes);
  for (const child of children) {
    if (typeof child === "string") node.own += child;
    else node.append(build(child));
  }
  return node;
}
const document = build(JSON.parse(require("fs").readFileSync(0, "utf8")));
document.createElement = (tag) => new Node(tag);
document.getElementById = (id) => document.walk().find((node) => node.id === id) || null;
globalThis.document = document;
