/* Module-federation container "itkwidgets-lab4": gives JupyterLab 4 the widget module "itkwidgets" 0.32.6, whose
   wheel carries JavaScript for the classic notebook only (an AMD bundle, wrapped beside this file as
   itkwidgets_amd.js). Everything is loaded from this folder; nothing from the network. */
(function () {
  "use strict";
  const NAME = "itkwidgets-lab4";
  const HERE = document.currentScript.src.replace(/[^/]*$/, "");
  let scope = null;

  /* The newest version of a module that JupyterLab shares. */
  async function shared(name) {
    const versions = Object.keys(scope[name] || {});
    if (!versions.length) throw new Error(`${NAME}: JupyterLab shares no module ${name}`);
    versions.sort((a, b) => a.localeCompare(b, undefined, { numeric: true }));
    return (await scope[name][versions[versions.length - 1]].get())();
  }

  /* The bundle subclasses with Backbone's Base.extend({...}, {...}); the widget bases of today are ES6 classes, which
     extend() written for functions cannot subclass. */
  function extendOf(Base) {
    return function (members, statics) {
      class Child extends Base {}
      Object.assign(Child.prototype, members);
      Object.assign(Child, statics);
      Child.extend = extendOf(Child);
      return Child;
    };
  }

  function extendable(base) {
    const patched = { ...base };
    for (const name of ["WidgetModel", "DOMWidgetModel", "WidgetView", "DOMWidgetView"]) {
      patched[name] = class extends base[name] {};
      patched[name].extend = extendOf(base[name]);
    }
    return patched;
  }

  function script(url) {
    return new Promise((resolve, reject) => {
      const element = document.createElement("script");
      element.src = url;
      element.onload = resolve;
      element.onerror = () => reject(new Error(`${NAME}: ${url} did not load`));
      document.head.appendChild(element);
    });
  }

  /* 0.32.6 reads these traits while they are still null; the error then skips every setting that follows. */
  function guard(view) {
    for (const trait of ["channels", "label_image_names", "label_image_weights"]) {
      const changed = view.prototype[`${trait}_changed`];
      if (!changed) continue;
      view.prototype[`${trait}_changed`] = function (...args) {
        const value = this.model.get(trait);
        return value && value.length !== 0 ? changed.apply(this, args) : undefined;
      };
    }
  }

  async function load() {
    const base = extendable(await shared("@jupyter-widgets/base"));
    await script(`${HERE}itkwidgets_amd.js`);
    /* The bundle finds its workers below <body data-base-url>/nbextensions/itkwidgets: while it starts, that is here. */
    const before = document.body.getAttribute("data-base-url");
    document.body.setAttribute("data-base-url", HERE);
    let widgets;
    try {
      window.__itkwidgets_amd((names, factory) => {
        const other = names.find((name) => name !== "@jupyter-widgets/base");
        if (other) throw new Error(`${NAME}: the bundle asks for ${other}`);
        widgets = factory(...names.map(() => base));
      });
    } finally {
      if (before === null) document.body.removeAttribute("data-base-url");
      else document.body.setAttribute("data-base-url", before);
    }
    guard(widgets.ViewerView);
    return widgets;
  }

  /* ipywidgets 7 hands its labels to MathJax 2 wherever there is a window.MathJax; JupyterLab 4 brings MathJax 3, and
     every label would end in an error. */
  let mathjax = window.MathJax;
  Object.defineProperty(window, "MathJax", {
    configurable: true,
    get: () => mathjax,
    set: (value) => {
      mathjax = value;
      if (value && !value.Hub) value.Hub = { Queue() {} };
    },
  });

  let loaded = null;
  const plugin = async () => {
    const base = await shared("@jupyter-widgets/base");
    return {
      id: `${NAME}:plugin`,
      autoStart: true,
      requires: [base.IJupyterWidgetRegistry],
      activate: (app, registry) =>
        registry.registerWidget({ name: "itkwidgets", version: "0.32.6", exports: () => (loaded ||= load()) }),
    };
  };

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB[NAME] = {
    init: (shares) => {
      scope = shares;
    },
    get: async () => {
      const module = { __esModule: true, default: await plugin() };
      return () => module;
    },
  };
})();
