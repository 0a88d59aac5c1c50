// Shows people what an answer's headers say: which sources did not answer, what was left out, why an image can't
// be had. OHIF reads neither `Warning` nor `Imagora-Sources`, so this looks at each answer of our DICOMweb paths
// as it passes through `fetch` and `XMLHttpRequest`, and changes nothing in it.
(function () {
  "use strict";

  var OURS = /^(?:\/(?:folders|sites|patients)\/[^/]+)?\/dicom-web\//;
  var THUMBNAIL = /\/thumbnail$/;
  var STUDY_SEARCH = /\/dicom-web\/studies$/;
  var SITE_STUDY = /\/sites\/([A-Za-z0-9_.-]{1,16})\/dicom-web\/studies\/([0-9.]{1,64})/g;
  var FAILED = ["timeout", "error", "refused", "skipped"];
  var LONGEST = 400; // characters of one line that a server wrote

  var french = /^fr\b/i.test(navigator.language || "");
  var say = french ? {
    region: "Messages sur les sources",
    close: "Fermer",
    reasons: {
      timeout: "délai dépassé", error: "erreur", refused: "accès refusé", skipped: "en panne, non interrogée",
    },
    missing: function (n, m) {
      var of = m ? " sur " + m : "";
      return n === 1 ? "1 source" + of + " n'a pas répondu : " : n + " sources" + of + " n'ont pas répondu : ";
    },
    capped: function (names) {
      return "Résultats incomplets, trop d'examens trouvés" + (names ? " : " + names : "") + ". Précisez la recherche.";
    },
    more: function (n, least) {
      return (least ? "Au moins " : "") + n + " autre(s) résultat(s) non affiché(s). Précisez la recherche.";
    },
    criterion: "Précisez le patient : identifiant exact, deux lettres du nom au moins, date de naissance et nom, "
      + "ou numéro d'examen.",
    conflict: "Un même numéro d'examen désigne des patients différents selon le site : vérifiez l'identité et "
      + "ouvrez l'examen depuis son site.",
    ownSite: "Les examens de votre propre site ne sont pas affichés ici.",
    nobody: "Aucune source n'est connectée ici.",
    failed: function (status) { return "La demande a échoué (" + status + ")"; },
    conflictRetrieve: "Cet examen désigne des patients différents selon le site. Ouvrez-le depuis un site : ",
    unavailable: "Aucune source n'a pu répondre. Réessayez dans un instant",
    signedOut: "Vous n'êtes plus connecté. ", signIn: "Se connecter",
  } : {
    region: "Messages about sources",
    close: "Close",
    reasons: { timeout: "timed out", error: "error", refused: "access refused", skipped: "down, not asked" },
    missing: function (n, m) {
      return (m ? n + " of " + m + (m === 1 ? " source" : " sources") : n + (n === 1 ? " source" : " sources"))
        + " did not answer: ";
    },
    capped: function (names) {
      return "Incomplete results, too many exams found" + (names ? ": " + names : "") + ". Narrow the search.";
    },
    more: function (n, least) {
      return (least ? "At least " : "") + n + " more result(s) not shown. Narrow the search.";
    },
    criterion: "Say which patient: exact identifier, at least two letters of the family name, birth date and name, "
      + "or accession number.",
    conflict: "One study number stands for different patients at different sites: check the identity and open the "
      + "exam from its site.",
    ownSite: "Exams of your own site are not shown here.",
    nobody: "No source is connected here.",
    failed: function (status) { return "The request failed (" + status + ")"; },
    conflictRetrieve: "This exam stands for different patients at different sites. Open it from one site: ",
    unavailable: "No source could answer. Try again in a moment",
    signedOut: "You are no longer signed in. ", signIn: "Sign in",
  };

  // ---- Reading headers: no state, no page -------------------------------------------------------------------

  // Warnings come one by one or joined by commas; texts hold commas of their own and may be quoted.
  function splitWarnings(header) {
    return (header || "").split(/,\s*(?=[1-9]\d\d [A-Za-z"])/).map(function (item) {
      var parts = /^\s*\d{3}\s+[^\s"]+\s+([\s\S]*)$/.exec(item);
      return (parts ? parts[1] : item).trim().replace(/^"([\s\S]*)"$/, "$1");
    }).filter(Boolean);
  }

  // `emetteur;status;rows;ms` items separated by commas.
  function parseSources(header) {
    return (header || "").split(",").map(function (item) {
      var fields = item.trim().split(";");
      return { emetteur: fields[0], status: (fields[1] || "").trim() };
    }).filter(function (source) { return source.emetteur && source.status; });
  }

  function displayName(emetteur) {
    var names = (window.config && window.config.imagora && window.config.imagora.siteNames) || {};
    return Object.prototype.hasOwnProperty.call(names, emetteur) ? names[emetteur] + " – " + emetteur : emetteur;
  }

  function listed(sources) {
    return sources.map(function (source) {
      var reason = Object.prototype.hasOwnProperty.call(say.reasons, source.status)
        ? say.reasons[source.status] : source.status;
      return displayName(source.emetteur) + (reason ? " (" + reason + ")" : "");
    }).join(", ");
  }

  // One notice: {level: "alert" | "status", text, links?: [{href, text}]}
  function noticesOf(warningHeader, sourcesHeader) {
    var notices = [];
    var sources = parseSources(sourcesHeader);
    var failed = sources.filter(function (s) { return FAILED.indexOf(s.status) >= 0; });
    var capped = sources.filter(function (s) { return s.status === "capped"; });
    var missing = failed.length;
    var asked = sources.length;

    splitWarnings(warningHeader).forEach(function (text) {
      var found;
      if ((found = /(\d+) of (\d+) sources? did not answer:?\s*(.*)$/i.exec(text))) {
        missing = Number(found[1]);
        asked = Number(found[2]);
        if (!failed.length) {
          failed = found[3].split(",").map(function (item) {
            var named = /^\s*([^\s(]+)\s*(?:\(([^)]*)\))?/.exec(item);
            return named ? { emetteur: named[1], status: named[2] || "" } : null;
          }).filter(Boolean);
        }
      } else if ((found = /(at least )?(\d+) additional results/i.exec(text))) {
        notices.push({ level: "status", text: say.more(Number(found[2]), Boolean(found[1])) });
      } else if (/fuzzymatching|includefield|parameter ignored/i.test(text)) {
        return; // for programmers: OHIF's requests are not typed by people
      } else if (/names no patient|criterion/i.test(text)) {
        notices.push({ level: "status", text: say.criterion });
      } else if (/no source is connected/i.test(text)) {
        notices.push({ level: "alert", text: say.nobody });
      } else if (/own site/i.test(text)) {
        notices.push({ level: "status", text: say.ownSite });
      } else if (/conflict|different (?:patients|people|persons)/i.test(text)) {
        notices.push({ level: "alert", text: say.conflict });
      } else if (/\b(?:was cut at|capped)\b/i.test(text)) {
        if (!capped.length) {
          found = /source (\S+) was cut/i.exec(text);
          notices.push({ level: "alert", text: say.capped(found ? displayName(found[1]) : "") });
        }
      } else {
        notices.push({ level: "status", text: text.slice(0, LONGEST) });
      }
    });
    if (missing) {
      notices.unshift({ level: "alert", text: say.missing(missing, asked) + listed(failed) });
    }
    if (capped.length) {
      var names = capped.map(function (s) { return displayName(s.emetteur); }).join(", ");
      notices.push({ level: "alert", text: say.capped(names) });
    }
    return notices;
  }

  function errorText(body) {
    try {
      var error = JSON.parse(body).error;
      return typeof error === "string" ? error.slice(0, LONGEST) : "";
    } catch (_) {
      return "";
    }
  }

  function errorNotice(status, body) {
    var text = errorText(body);
    if (status === 401) {
      var here = window.location.pathname + window.location.search;
      var link = { href: "/portal/sign-in?next=" + encodeURIComponent(here), text: say.signIn };
      return { level: "alert", text: say.signedOut, links: [link] };
    }
    if (status === 409) {
      var links = [];
      var seen = {};
      (body || "").replace(SITE_STUDY, function (_, emetteur, study) {
        if (!seen[emetteur]) {
          seen[emetteur] = true;
          links.push({
            href: "/viewer/site-" + encodeURIComponent(emetteur) + "?StudyInstanceUIDs=" + encodeURIComponent(study),
            text: displayName(emetteur),
          });
        }
      });
      if (links.length) {
        return { level: "alert", text: say.conflictRetrieve, links: links };
      }
    }
    var opening = status === 503 ? say.unavailable : say.failed(status);
    return { level: "alert", text: text ? opening + " : " + text : opening + "." };
  }

  function isShownError(status, url) {
    if (THUMBNAIL.test(url.pathname) && status >= 500 && status !== 503) {
      return false; // one picture that can't be made: OHIF takes the image itself, or shows that there is none
    }
    return status === 401 || status === 403 || status === 409 || status === 429 || status >= 500;
  }

  // ---- What is to be shown now ----------------------------------------------------------------------------------

  var page = null; // path of OHIF's page that the notices belong to
  var groups = {}; // key → {sequence, notices}: the study list is one group, in the viewer each request is its own
  var closed = {}; // texts that were closed; forgotten once they no longer hold
  var sequence = 0;

  function forgetOtherPage() {
    if (page !== window.location.pathname) {
      page = window.location.pathname;
      groups = {};
    }
  }

  // A later answer of the same group replaces an earlier one, whichever arrives last.
  function record(url, order, fromPage, notices) {
    forgetOtherPage();
    var key = page === "/" && STUDY_SEARCH.test(url.pathname) ? "list" : url.pathname + url.search;
    var held = groups[key];
    var stale = fromPage !== page || (held && held.sequence > order);
    // Hundreds of answers of frames say nothing: only what may take the place of a message is kept.
    if (!stale && (notices.length || held || key === "list")) {
      groups[key] = { sequence: order, notices: notices };
    }
    render();
  }

  function current() {
    var seen = {};
    var all = [];
    Object.keys(groups).forEach(function (key) {
      groups[key].notices.forEach(function (notice) {
        if (!seen[notice.text]) {
          seen[notice.text] = true;
          all.push(notice);
        }
      });
    });
    Object.keys(closed).forEach(function (text) {
      if (!seen[text]) {
        delete closed[text];
      }
    });
    return all.filter(function (notice) { return !closed[notice.text]; });
  }

  // ---- The banner -----------------------------------------------------------------------------------------------

  var STYLE = ":host{all:initial}"
    + ".box{position:fixed;left:50%;bottom:12px;transform:translateX(-50%);z-index:2147483000;display:flex;gap:12px;"
    + "align-items:flex-start;max-width:min(92vw,880px);max-height:40vh;overflow:auto;box-sizing:border-box;"
    + "padding:10px 12px 10px 16px;border-radius:6px;border-left:5px solid #f5b942;background:#2b2410;color:#fff6df;"
    + "font:14px/1.45 system-ui,sans-serif;box-shadow:0 4px 18px rgba(0,0,0,.6)}"
    + ".box[hidden]{display:none}.box.calm{border-left-color:#5aa9ff;background:#101d35;color:#e8f1ff}"
    + ".lines{min-width:0;overflow-wrap:anywhere}p{margin:0}p+p,div+div:not(:empty){margin-top:6px}"
    + "a{color:inherit;margin-right:12px}"
    + "button{flex:none;min-width:32px;min-height:32px;margin:-4px -4px 0 0;border:0;border-radius:4px;cursor:pointer;"
    + "background:transparent;color:inherit;font:20px/1 system-ui,sans-serif}"
    + "button:hover{background:rgba(255,255,255,.15)}button:focus-visible,a:focus-visible{outline:2px solid #fff}";
  var parts = null;

  function build() {
    var host = document.createElement("imagora-banner");
    var root = host.attachShadow({ mode: "open" });
    var style = document.createElement("style");
    style.textContent = STYLE;
    var box = document.createElement("section");
    box.className = "box";
    box.hidden = true;
    box.setAttribute("aria-label", say.region);
    var lines = document.createElement("div");
    lines.className = "lines";
    // Live regions stand in the page before their text does, else screen readers pass over it.
    var alerts = document.createElement("div");
    alerts.setAttribute("role", "alert");
    var statuses = document.createElement("div");
    statuses.setAttribute("role", "status");
    lines.append(alerts, statuses);
    var button = document.createElement("button");
    button.type = "button";
    button.textContent = "×";
    button.setAttribute("aria-label", say.close);
    button.title = say.close;
    button.addEventListener("click", close);
    // Keys pressed in the banner are not OHIF's shortcuts.
    box.addEventListener("keydown", function (event) {
      event.stopPropagation();
      if (event.key === "Escape") {
        close();
      }
    });
    box.append(lines, button);
    root.append(style, box);
    document.body.append(host);
    parts = { box: box, alert: alerts, status: statuses, shown: "" };
  }

  function close() {
    current().forEach(function (notice) { closed[notice.text] = true; });
    render();
  }

  function line(notice) {
    var paragraph = document.createElement("p");
    paragraph.textContent = notice.text;
    (notice.links || []).forEach(function (link) {
      var anchor = document.createElement("a");
      anchor.href = link.href;
      anchor.textContent = link.text;
      paragraph.append(anchor);
    });
    return paragraph;
  }

  function render() {
    if (!document.body) {
      document.addEventListener("DOMContentLoaded", render, { once: true });
      return;
    }
    var notices = current();
    if (!parts) {
      if (!notices.length) {
        return;
      }
      build();
    }
    var shown = JSON.stringify(notices);
    if (shown === parts.shown) {
      return; // said once is enough: a screen reader would read it again
    }
    parts.shown = shown;
    ["alert", "status"].forEach(function (level) {
      parts[level].replaceChildren.apply(
        parts[level], notices.filter(function (n) { return n.level === level; }).map(line));
    });
    parts.box.hidden = !notices.length;
    parts.box.classList.toggle("calm", notices.every(function (n) { return n.level === "status"; }));
  }

  // ---- Looking at answers as they pass --------------------------------------------------------------------------

  function ours(address) {
    var url;
    try {
      url = new URL(address, window.location.href);
    } catch (_) {
      return null;
    }
    return url.origin === window.location.origin && OURS.test(url.pathname) ? url : null;
  }

  // A notice must never cost an image: whatever goes wrong in here stays in here.
  function safely(action) {
    try {
      action();
    } catch (error) {
      console.warn("imagora-banner:", error);
    }
  }

  var nativeFetch = window.fetch;
  window.fetch = function (resource) {
    var order = ++sequence;
    var fromPage = window.location.pathname;
    var answer = nativeFetch.apply(this, arguments);
    var url = ours(resource instanceof Request ? resource.url : String(resource));
    if (url) {
      answer.then(function (response) {
        safely(function () {
          var notices = noticesOf(response.headers.get("Warning"), response.headers.get("Imagora-Sources"));
          if (!isShownError(response.status, url)) {
            record(url, order, fromPage, notices);
            return;
          }
          response.clone().text().then(function (body) {
            safely(function () {
              record(url, order, fromPage, notices.concat(errorNotice(response.status, body)));
            });
          }, function () {});
        });
      }, function () {}); // the caller hears of it by its own promise
    }
    return answer;
  };

  function bodyText(request) {
    if (request.responseType === "" || request.responseType === "text") {
      return request.responseText;
    }
    if (request.responseType === "json") {
      return JSON.stringify(request.response);
    }
    if (request.responseType === "arraybuffer" && request.response) {
      return new TextDecoder().decode(request.response);
    }
    return "";
  }

  var nativeSend = XMLHttpRequest.prototype.send;
  XMLHttpRequest.prototype.send = function () {
    var request = this;
    var order = ++sequence;
    var fromPage = window.location.pathname;
    request.addEventListener("loadend", function () {
      safely(function () {
        var url = request.status ? ours(request.responseURL) : null;
        if (!url) {
          return;
        }
        var notices = noticesOf(request.getResponseHeader("Warning"), request.getResponseHeader("Imagora-Sources"));
        if (isShownError(request.status, url)) {
          notices.push(errorNotice(request.status, bodyText(request)));
        }
        record(url, order, fromPage, notices);
      });
    }, { once: true });
    return nativeSend.apply(request, arguments);
  };
})();
