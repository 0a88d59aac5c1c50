"""OHIF's `window.config`, made from the registry: one data source per scope of the façade."""

from __future__ import annotations

import json
from typing import Any

from registry import Directory, Folder, Site

#: Name of the data source over all members: the one that OHIF uses where its URL names none.
ALL_SOURCES = "imagora"

#: Rows of one study list. OHIF pages in the browser and never asks for more than its first request gave; the
#: banner tells how many further studies match.
STUDY_LIST_LIMIT = 250

_DICOMWEB = "@ohif/extension-default.dataSourcesModule.dicomweb"

# Addresses are completed in the browser: its own origin is right behind any proxy, and dicomweb-client wants
# absolute URLs. Functions can't stand in JSON.
_SCRIPT = """\
(function () {
  "use strict";
  var settings = %s;
  var french = /^fr\\b/i.test(navigator.language || "");
  settings.dataSources.forEach(function (source) {
    ["qidoRoot", "wadoRoot", "wadoUriRoot"].forEach(function (key) {
      source.configuration[key] = window.location.origin + source.configuration[key];
    });
  });
  settings.customizationService = [
    {
      "workList.settingsMenuItems": {
        $set: function (items) {
          return items.concat({
            id: "imagoraSources",
            label: french ? "Choisir une source" : "Choose a source",
            onClick: function () { window.location.assign("/portal/sources"); },
          });
        },
      },
      // The server matches names whatever their accents and hyphens; OHIF would filter its rows once more, letter
      // by letter, and hide what was found. The patient's id names the site that it comes from, so it is among
      // the last columns to give way.
      "workList.columns": {
        $apply: function (columns) {
          return columns.map(function (column) {
            var changes = {};
            if (["patient", "mrn", "accession", "description"].indexOf(column.id) >= 0) {
              changes.filterFn = function () { return true; };
            }
            if (column.id === "mrn") {
              changes.meta = Object.assign({}, column.meta, {
                label: french ? "IPP" : "Patient ID", minWidth: 190, priority: 95,
                headerClassName: "min-w-[190px]", cellClassName: "min-w-[190px]",
              });
            }
            return Object.assign({}, column, changes);
          });
        },
      },
      // A guided tour that darkens the images at the first visit is no help in an emergency.
      "ohif.tours": { $set: [] },
    },
  ];
  // OHIF calls it without looking whether it is there. The banner says what went wrong.
  settings.httpErrorHandler = function () {};
  window.config = settings;
})();
"""


def site_source(site: Site) -> str:
    """Name of the data source over one site: `/viewer/<name>?StudyInstanceUIDs=…` opens a study of that site."""
    return f"site-{site.emetteur}"


def folder_source(folder: Folder) -> str:
    """Name of the data source over one folder. The prefixes keep the three kinds of name apart."""
    return f"folder-{folder.slug}"


def folders_with_members(directory: Directory) -> list[Folder]:
    return [f for slug, f in directory.folders.items() if any(s.asked for s in directory.in_folder(slug))]


def app_config(directory: Directory, *, federation: str) -> str:
    """JavaScript that sets `window.config` for OHIF 3.13. Lists scopes with members that are asked."""
    settings = {
        "name": "imagora",
        "routerBasename": "/",
        "extensions": [],
        "modes": [],
        "showStudyList": True,
        "maxNumberOfWebWorkers": 3,
        "showWarningMessageForCrossOrigin": True,
        "showCPUFallbackMessage": True,
        "showLoadingIndicator": True,
        "strictZSpacingForVolumeViewport": True,
        "groupEnabledModesFirst": True,
        "maxNumRequests": {"interaction": 100, "thumbnail": 5, "prefetch": 25},
        "showErrorDetails": "always",
        "investigationalUseDialog": {"option": "never"},
        "defaultDataSourceName": ALL_SOURCES,
        "dataSources": [
            _data_source(ALL_SOURCES, federation, "/dicom-web"),
            *(
                _data_source(folder_source(folder), folder.name, f"/folders/{folder.slug}/dicom-web")
                for folder in folders_with_members(directory)
            ),
            *(
                _data_source(site_source(site), f"{site.name} ({site.emetteur})", f"/sites/{site.emetteur}/dicom-web")
                for site in directory.sites
                if site.asked
            ),
        ],
        # Not OHIF's: the banner shows people the name of a site next to its EMETTEUR.
        "imagora": {"siteNames": {site.emetteur: site.name for site in directory.sites}},
    }
    return _SCRIPT % _script_json(settings)


def _data_source(name: str, friendly_name: str, root: str) -> dict[str, Any]:
    return {
        "namespace": _DICOMWEB,
        "sourceName": name,
        "configuration": {
            "friendlyName": friendly_name,
            "name": name,
            "qidoRoot": root,
            "wadoRoot": root,
            "wadoUriRoot": root,
            "qidoSupportsIncludeField": True,
            "queryLimit": STUDY_LIST_LIMIT,
            "supportsReject": False,
            "dicomUploadEnabled": False,
            "imageRendering": "wadors",
            # Ours: where a member makes none, the façade does. With `fetch` one that can't be had leaves a gap, and one
            # that is no longer wanted is broken off; the other way is neither.
            "thumbnailRendering": "thumbnail",
            "thumbnailRequestStrategy": "fetch",
            "enableStudyLazyLoad": True,
            "supportsFuzzyMatching": True,
            "supportsWildcard": True,
            "staticWado": False,
            "singlepart": "bulkdata",
            "bulkDataURI": {"enabled": True, "relativeResolution": "studies"},
            "omitQuotationForMultipartRequest": True,
        },
    }


def _script_json(value: object) -> str:
    """JSON that may stand in a script wherever that script stands: no `</script>`, no `<!--`, ASCII only."""
    text = json.dumps(value, ensure_ascii=True, indent=1)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
