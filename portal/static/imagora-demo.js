// Says on every page of the viewer that this is a demonstration, and leads to the way out. It lets clicks through: the
// viewer's own buttons lie beneath.
(function () {
  "use strict";
  var french = /^fr\b/i.test(navigator.language || "");
  var STYLE = ":host{all:initial}"
    + ".strip{position:fixed;top:0;left:50%;transform:translateX(-50%);z-index:2147482000;pointer-events:none;"
    + "padding:1px 12px 2px;border-radius:0 0 6px 6px;background:#7a1f1f;color:#fff;white-space:nowrap;"
    + "font:12px/1.4 system-ui,sans-serif;opacity:.92}"
    + "a{color:inherit;pointer-events:auto;margin-left:10px}a:focus-visible{outline:2px solid #fff}";

  function show() {
    var host = document.createElement("imagora-demo");
    var root = host.attachShadow({ mode: "open" });
    var style = document.createElement("style");
    style.textContent = STYLE;
    var strip = document.createElement("div");
    strip.className = "strip";
    strip.setAttribute("role", "note");
    strip.textContent = french ? "Démonstration – aucun examen réel" : "Demonstration – no real exams";
    var out = document.createElement("a");
    out.href = "/portal/sign-out";
    out.textContent = french ? "Se déconnecter" : "Sign out";
    strip.append(out);
    root.append(style, strip);
    document.body.append(host);
  }

  if (document.body) {
    show();
  } else {
    document.addEventListener("DOMContentLoaded", show, { once: true });
  }
})();
