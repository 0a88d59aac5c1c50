"""A scorecard of each member for people: what its PACS offers, what it lacks and what that means, how fast it is.

One HTML document in French, English or both. It holds all that it needs, runs nothing and names no patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from html import escape
from typing import Literal, NamedTuple

from registry.profiles import Feature, Profile

Language = Literal["fr", "en"]
LANGUAGES: tuple[Language, ...] = ("fr", "en")


class Words(NamedTuple):
    """What a feature is called, and what its lack means for users ("" = nothing that they notice)."""

    name: str
    lack: str


class Both(NamedTuple):
    fr: Words
    en: Words


_SLOWER = (
    "Recherches plus lentes : davantage de requêtes ou de lignes.",
    "Searches are slower: more requests or rows.",
)

WORDS: dict[Feature, Both] = {
    Feature.LIMIT: Both(
        Words("Nombre de lignes limité à la demande (limit)", "Il envoie toujours toutes ses lignes : plus lent."),
        Words("Number of rows as asked for (limit)", "It always sends all its rows: slower."),
    ),
    Feature.OFFSET: Both(
        Words(
            "Pages suivantes (offset)", "Les lignes au-delà de sa première page ne peuvent être lues ; c'est signalé."
        ),
        Words("Further pages (offset)", "Rows beyond its first page cannot be had; answers say so."),
    ),
    Feature.STEADY_ORDER: Both(
        Words("Ordre stable des lignes", "Aucune gêne : Imagora trie les lignes."),
        Words("Steady order of rows", "None noticed: Imagora sorts the rows."),
    ),
    Feature.NAMES_IN_ANY_CASE: Both(
        Words("Noms en majuscules ou minuscules", _SLOWER[0]), Words("Names in capitals or small letters", _SLOWER[1])
    ),
    Feature.NAMES_WITHOUT_ACCENTS: Both(
        Words("Noms sans leurs accents", "Des noms aux lettres rares (ł, ř, đ) peuvent échapper aux recherches."),
        Words("Names without their accents", "Names with rare letters (ł, ř, đ) may escape searches."),
    ),
    Feature.WILDCARD_STAR: Both(
        Words("Caractère * dans les noms", "Ses examens ne peuvent être trouvés par le nom du patient."),
        Words("* in names", "Its exams cannot be found by the patient's name."),
    ),
    Feature.WILDCARD_QUESTION: Both(
        Words("Caractère ? dans les noms", "Certaines orthographes peuvent manquer quand il a trop de lignes."),
        Words("? in names", "Some spellings may be missing where it has too many rows."),
    ),
    Feature.PERCENT_DECODING: Both(
        Words("Valeurs encodées (%) comprises", _SLOWER[0]), Words("Percent-encoded values", _SLOWER[1])
    ),
    Feature.UID_LIST_COMMA: Both(
        Words("Plusieurs examens demandés à la fois (virgules)", _SLOWER[0]),
        Words("Several exams asked for at once (commas)", _SLOWER[1]),
    ),
    Feature.UID_LIST_BACKSLASH: Both(
        Words("Plusieurs examens demandés à la fois (barres obliques inverses)", ""),
        Words("Several exams asked for at once (backslashes)", ""),
    ),
    Feature.INCLUDEFIELD: Both(
        Words("Attributs demandés par leur nom (includefield)", "Des colonnes peuvent rester vides dans les listes."),
        Words("Attributes asked for by name (includefield)", "Columns of lists may stay empty."),
    ),
    Feature.SERIES_SEARCH: Both(
        Words("Recherche de séries à travers les examens", "Les séries ne se cherchent que dans un examen à la fois."),
        Words("Search for series across exams", "Series can be searched for within one exam at a time only."),
    ),
    Feature.INSTANCE_SEARCH: Both(
        Words("Recherche d'images à travers les examens", "Les images ne se cherchent que dans un examen à la fois."),
        Words("Search for images across exams", "Images can be searched for within one exam at a time only."),
    ),
    Feature.NO_MATCH_204: Both(
        Words("Réponse 204 quand rien n'est trouvé", ""), Words("Answer 204 where nothing is found", "")
    ),
    Feature.DICOM_JSON: Both(
        Words("Type application/dicom+json accepté", ""), Words("Takes application/dicom+json", "")
    ),
    Feature.UTF_8: Both(
        Words("Réponses en UTF-8", "Des lettres accentuées peuvent être mal lues."),
        Words("Answers in UTF-8", "Letters with accents may be misread."),
    ),
    Feature.METADATA: Both(
        Words("Métadonnées", "Ses examens ne s'ouvrent pas dans la visionneuse."),
        Words("Metadata", "Its exams do not open in the viewer."),
    ),
    Feature.EXPLICIT: Both(
        Words("Fichiers DICOM en VR explicite", "Certains examens ne peuvent être transférés."),
        Words("DICOM files in explicit VR", "Some exams cannot be transferred."),
    ),
    Feature.AS_STORED: Both(
        Words("Fichiers DICOM tels qu'ils sont stockés", "Transferts plus lents : il convertit chaque image."),
        Words("DICOM files as they are stored", "Transfers are slower: it converts each image."),
    ),
    Feature.SINGLE_PART: Both(
        Words("Fichier DICOM seul, sans multipart", ""), Words("A single DICOM file, without multipart", "")
    ),
    Feature.FRAMES: Both(
        Words("Images une à une (frames)", "Ses images ne s'affichent pas dans la visionneuse."),
        Words("Frames", "Its images do not show in the viewer."),
    ),
    Feature.BULK_DATA: Both(
        Words("Données volumineuses (bulk data)", "Les documents joints (PDF) et certaines images ne s'affichent pas."),
        Words("Bulk data", "Attached documents (PDF) and some images do not show."),
    ),
    Feature.RENDERED: Both(
        Words("Images prêtes à afficher (rendered)", "Pas d'image JPEG ou PNG faite par ce site."),
        Words("Rendered images", "No JPEG or PNG made by this site."),
    ),
    Feature.THUMBNAIL: Both(
        Words("Vignettes", "Pas de vignette faite par ce site."),
        Words("Thumbnails", "No thumbnail made by this site."),
    ),
    Feature.HEAD: Both(Words("Requêtes HEAD", ""), Words("HEAD requests", "")),
    Feature.OPTIONS: Both(Words("Requêtes OPTIONS", ""), Words("OPTIONS requests", "")),
}

_TEXTS: dict[Language, dict[str, str]] = {
    "fr": {
        "title": "Ce que savent faire les PACS des sites",
        "members": "Sites vérifiés",
        "site": "Site",
        "verdict": "Utilisable",
        "latency": "Réponse à une recherche (médiane)",
        "speed": "Débit sur une petite image",
        "checked": "Dernière vérification",
        "offered": "Ce qu'il offre",
        "missing": "Ce qui manque, et ce que cela change",
        "unknown": "Ce qui n'a pu être établi",
        "feature": "Fonction",
        "lack": "Pour les utilisateurs",
        "nothing": "Sans conséquence visible.",
        "yes": "oui",
        "no": "non",
        "none": "rien",
        "untried": "Le stockage (STOW-RS) n'est pas essayé : une vérification n'envoie aucun examen.",
        "when": "%d/%m/%Y à %H:%M",
    },
    "en": {
        "title": "What the sites' PACS can do",
        "members": "Sites that were checked",
        "site": "Site",
        "verdict": "Usable",
        "latency": "Answer to a search (median)",
        "speed": "Throughput of one small image",
        "checked": "Last checked",
        "offered": "What it offers",
        "missing": "What it lacks, and what that means",
        "unknown": "What could not be told",
        "feature": "Feature",
        "lack": "For users",
        "nothing": "Nothing that they notice.",
        "yes": "yes",
        "no": "no",
        "none": "nothing",
        "untried": "Storing (STOW-RS) is not tried: a check sends no exam.",
        "when": "%Y-%m-%d %H:%M",
    },
}

_STYLE = (
    "body{font:1rem/1.5 system-ui,sans-serif;color:#111;background:#fff;max-width:64rem;margin:auto;padding:1rem}"
    "table{border-collapse:collapse;width:100%;margin:.5rem 0 1rem}"
    "caption{text-align:start;font-weight:600;padding:.25rem 0}"
    "th,td{border:1px solid #767676;padding:.3rem .6rem;text-align:start;vertical-align:top}"
    "thead th{background:#eee}article{border-top:2px solid #111;margin-top:2rem}a{color:#0645ad}"
)


def lacks(profile: Profile, language: Language = "en") -> list[tuple[str, str]]:
    """→ (feature, what its lack means) of what is known to be missing and is noticed."""
    found = [(_words(feature, language)) for feature in Feature if profile.features.get(feature) is False]
    return [(words.name, words.lack) for words in found if words.lack]


def speed(profile: Profile) -> tuple[str, str]:
    """→ (latency, throughput) in words, `–` where there is none."""
    latency = f"{profile.latency_s * 1000:.0f} ms" if profile.latency_s is not None else "–"
    rate = f"{profile.bytes_per_s / 1e6:.1f} MB/s" if profile.bytes_per_s is not None else "–"
    return latency, rate


def html(profiles: Sequence[Profile], languages: Sequence[Language] = LANGUAGES) -> str:
    """The whole document. The first language is the document's own."""
    titles = " – ".join(_TEXTS[language]["title"] for language in languages)
    links = "".join(
        f'<li><a href="#{language}" hreflang="{language}" lang="{language}">{_TEXTS[language]["title"]}</a></li>'
        for language in languages
    )
    navigation = f"<nav><ul>{links}</ul></nav>" if len(languages) > 1 else ""
    body = "".join(_part(profiles, language) for language in languages)
    return (
        f'<!doctype html>\n<html lang="{languages[0]}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(titles)}</title><style>{_STYLE}</style></head>"
        f"<body>{navigation}<main>{body}</main></body></html>\n"
    )


def _part(profiles: Sequence[Profile], language: Language) -> str:
    text = _TEXTS[language]
    rows = "".join(
        f'<tr><th scope="row"><a href="#{_anchor(profile, language)}">{_title(profile)}</a></th>'
        f"<td>{text['yes'] if profile.usable else text['no']}</td>"
        + "".join(f"<td>{cell}</td>" for cell in (*_speed(profile, language), _moment(profile.checked_at, text)))
        + "</tr>"
        for profile in profiles
    )
    heads = "".join(f'<th scope="col">{text[key]}</th>' for key in ("site", "verdict", "latency", "speed", "checked"))
    return (
        f'<section id="{language}" lang="{language}"><h1>{text["title"]}</h1>'
        f"<table><caption>{text['members']}</caption><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        f"<p>{text['untried']}</p>{''.join(_card(profile, language) for profile in profiles)}</section>"
    )


def _card(profile: Profile, language: Language) -> str:
    text = _TEXTS[language]
    missing = [_words(feature, language) for feature in Feature if profile.features.get(feature) is False]
    rows = "".join(
        f'<tr><th scope="row">{escape(words.name)}</th><td>{escape(words.lack or text["nothing"])}</td></tr>'
        for words in missing
    )
    heads = f'<th scope="col">{text["feature"]}</th><th scope="col">{text["lack"]}</th>'
    table = (
        f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>" if missing else f"<p>{text['none']}</p>"
    )
    offered = [_words(feature, language).name for feature in Feature if profile.features.get(feature)]
    unknown = [_words(feature, language).name for feature in Feature if feature not in profile.features]
    return (
        f'<article id="{_anchor(profile, language)}"><h2>{_title(profile)}</h2>'
        f"<h3>{text['missing']}</h3>{table}"
        f"<h3>{text['offered']}</h3>{_list(offered, text)}"
        f"<h3>{text['unknown']}</h3>{_list(unknown, text)}</article>"
    )


def _list(items: Sequence[str], text: dict[str, str]) -> str:
    if not items:
        return f"<p>{text['none']}</p>"
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"


def _words(feature: Feature, language: Language) -> Words:
    both = WORDS[feature]
    return both.fr if language == "fr" else both.en


def _speed(profile: Profile, language: Language) -> tuple[str, str]:
    latency, rate = speed(profile)
    return (latency, rate.replace(".", ",").replace("MB", "Mo")) if language == "fr" else (latency, rate)


def _title(profile: Profile) -> str:
    return escape(f"{profile.emetteur}, {profile.name}" if profile.name else profile.emetteur)


def _anchor(profile: Profile, language: Language) -> str:
    return escape(f"{language}-{profile.emetteur}", quote=True)


def _moment(moment: datetime | None, text: dict[str, str]) -> str:
    return moment.astimezone().strftime(text["when"]) if moment is not None else "–"
