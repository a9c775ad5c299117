"""What one series says of its kind: by its physics, by its names, and about contrast agent.

Times are in ms. The ranges of repetition, echo and inversion times are those of clinical brain protocols at 1.5 and
3 T (Siemens, GE, Philips, Canon); where two kinds share a range, the evidence is called equivocal.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable
from itertools import takewhile
from pathlib import PurePosixPath
from typing import NamedTuple

from brainmets.preparation.scans import Header, Series

# --- words -------------------------------------------------------------------------------------------------------

OTHER_WORDS = {
    "a label map": r"seg|mask|maske|label|labels|roi|gt|segmentation",
    "diffusion": r"dwi|dw|diff\w*|dti|adc|eadc|dadc|tracew?|b0|b\d{3,4}|resolve|zoomit|noddi|dki|hardi|colfa|tensor",
    "susceptibility or T2*": r"swi\w*|swan|venbold|hemo|haemo|hamo|t2 star\w*"
    r"|t2 (?:3d |2d )?(?:ffe|gre|fe|fl[23]d)\w*|(?:ffe|gre|fl2d) t2|qsm|medic|merge",
    "arterial spin labelling": r"asl|pasl|pcasl|easl",
    "perfusion": r"perf\w*|dsc|dce|rcbv|rcbf|cbv|cbf|mtt|ttp|tmax|pbp|gbp|ktrans|twist|dyn\w*",
    "angiography": r"tof|mra|mrv|angio\w*|venogr\w*|phase contrast|phasenkontrast|pc ?mra?|pca|inhance|trance",
    "a localiser": r"loc|locali\w*|scout|aah\w*|survey|surview|3 ?plane|3pl|plan ?scan|smartbrain|reperage"
    r"|ubersicht|calib\w*|cal|sense ref|coil\w*|ref ?scan|ref",
    "a projection": r"mip|minip|mnip|projection|vrt|ssd",
    "a subtraction": r"sub|subs|subtr\w*|subtra\w*|soustr\w*|sottr\w*",
    "a phase image": r"pha|phase|ph|phasen\w*|real|imag|imaginary",
    "balanced gradient echo": r"ciss|fiesta\w*|tru ?fi\w*|true ?fisp|b ?ffe|b ?tfe|bal\w* ?ffe|fisp|drive|iac",
    "another region than the brain": r"spine|hws|bws|lws|[ctl] ?spine|ws|cervical\w*|thora\w*|lumb\w*|spinal\w*|rachis"
    r"|columna|wirbel\w*|myelo\w*|neck|hals|orbit\w*|sella|pituit\w*|hypophy\w*|nasal|sinus|tmj|felsenbein\w*",
    "a parameter map": r"t1 ?maps?|t2 ?maps?|t1 images?|maps?|mapit|molli|t1rho|fmap|field ?map\w*|field mapping|b1",
    "synthetic": r"syn|synth\w*|symri|magic",
    "spectroscopy or function": r"spectro\w*|csi|svs|mrsi?|bold|fmri|f mri|rest|resting\w*|ep2d",
    "double inversion": r"dir|double inversion|psir|fgatir|edge",
    "STIR": r"stir",
    "an inversion image of MP2RAGE": r"inv ?[12]",
    "fat or opposed-phase image": r"(?:m?dixon|vibe|flex|lava)(?: \w+)*"
    r" (?:opp\w*|out|op|f|fat)(?! ?(?:s|sat\w*|sup\w*|frac\w*)(?!\w))|opposed",
}
"""Kinds of series that are never taken, by words of their names (a space stands for any separator)."""

OTHER_IMAGE_TYPES = {
    "diffusion": "ADC TRACEW DIFFUSION FA EADC DTI TENSOR",
    "perfusion": "PERFUSION RCBV RCBF CBV CBF MTT TTP PBP GBP",
    "arterial spin labelling": "ASL",
    "a projection": "MIP MNIP MIN_IP MINIP PROJECTION",
    "a reformat": "MPR REFORMATTED RESAMPLED CSA_MPR",
    "a subtraction": "SUB SUBTRACT SUBTRACTION",
    "a phase image": "P R I PHASE PHASE_MAP VELOCITY REAL IMAGINARY",
    "a localiser": "LOCALIZER",
    "a screen capture": "SCREEN CAPTURE",
    "susceptibility or T2*": "SWI T2_STAR QSM",
    "a parameter map": "MAP T1_MAP T2_MAP",
    "fat or opposed-phase image": "FAT F OP OUT_PHASE OPP_PHASE FAT_FRACTION",
}
"""The same by the values of ImageType."""

T1_METHODS = r"(?:3d)?mp ?rage|3dmp|bravo|fspgr|spgr|tfl3d\w*|tfe|vibe|lava|e?thrive|mp2rage|quick ?3d"
"""Methods that give T1 weighting unless a name says T2."""

CONTRAST = (
    r"gd\w*|gad\w*|post(?:c|gd|gad\w*|km|contr\w*|inj\w*)?|ce|[nm]?km|contr\w*|kontr\w*|inj\w*|iv|mdc|civ|cm|enh\w*"
    r"|apres|avec|nach|dopo|despues"
)
NATIVE = (
    r"pre(?:gd|gad\w*|km|contr\w*|inj\w*)?|[ov]km|nativ\w*|nat|unenh\w*|noncontr\w*|plain|ohne|sans|without|senza|avant"
    r"|vor|before|noncon|pra"
)
NEGATED = (
    r"(?:ohne|sans|without|w o|wo|non|no|senza|sin|before|vor|avant|pre|kein|prima|pra|o|v)"
    r"(?: de| di| du| le)? (?:km|gd|gad\w*|contr\w*|kontr\w*|postc|ce|cm|iv|inj\w*|mdc|civ|enh\w*|c)"
)
NOT_CONTRAST = (
    r"(?:w|with) (?:and |und )?(?:wo|w o|without)(?: contr\w*)?|(?:wo|w o|without) (?:and )?(?:w|with)(?: contr\w*)?"
    r"|post ?(?:erior)? ?fossa|(?:post|pre) ?(?:op\w*|proc\w*|rt|rx|rad\w*|surg\w*|treat\w*|bio\w*)"
)
"""Words of contrast that say nothing of it: "with and without" is the whole examination, "post op" the patient."""
NO_AGENT = r"no|none|n|0|ohne|keine?|non|without|aucun|nein|nil|na|n a|false"


class Physics(NamedTuple):
    """The kind that the physics tell ("" none), whether nothing else looks so, and the numbers in words."""

    kind: str
    sure: bool
    text: str


class Named(NamedTuple):
    """What a series' names say.

    ``kinds``: of "t1", "t2", "flair", "pd", "stir", "t1 flair"; ``other``: a kind that is not taken, "" none;
    ``word``: the word that said so; ``contrast``: "yes", "no", "" silent or both.
    """

    kinds: frozenset[str]
    other: str
    word: str
    contrast: str


def _pattern(words: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w)(?:{words})(?!\w)")


OTHERS = {label: _pattern(words) for label, words in OTHER_WORDS.items()}


def plain(text: str) -> str:
    """Lower case, without accents, every run of other signs one space; "+C" and "T2*" become words.

    >>> plain("AX T1-FLAIR +C"), plain("T2*"), plain("Schädel_T1nachKM")
    ('ax t1 flair postc', 't2 star', 'schadel t1 nach km')
    """
    text = "".join(sign for sign in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(sign))
    text = re.sub(r"t2w?\s?\*", " t2star ", text)
    text = re.sub(r"(?<=\s)-c(?![\w+])|(?<![a-z0-9])c-(?=\s|$)", " native ", text)
    text = re.sub(r"\+\s*c(?![a-z0-9])|(?<![a-z0-9])c\+|(?<=t1)\+(?=\s|$)", " postc ", text)
    text = re.sub(r"w/o", " wo ", text)
    text = re.sub(r"[^a-z0-9]+", " ", text)
    text = re.sub(
        r"(?<![a-z0-9])((?:3d|2d|ax|sag|cor|tra|e|s|fs)*)t([12])(?!\d)(w(?:i|gt)?)?(\w*)",
        lambda found: f"{found[1]} t{found[2]} {_suffix(found[2], found[4])}",
        text,
    )
    return " ".join(text.split())


def _suffix(number: str, rest: str) -> str:
    """What follows "t1" or "t2" in one word, apart."""
    if number == "2" and rest == "f":
        return "flair"
    if number == "1" and rest == "n":
        return "native"
    if number == "1" and rest == "c":
        return "c"
    if rest == "s" or rest.startswith("star"):
        return "star"
    return re.sub(r"^(nach|post|pre|nativ|ohne|gd|gad|ce|km|se|tse|fse|flair|mprage|fl)(?=[a-z0-9])", r"\1 ", rest)


def named(series: Series, protocol_tells: bool, lead: int = 0) -> Named:
    """What the description, the sequence's name and (where ``protocol_tells``) the protocol say; a volume's file name.

    ``lead`` words at the beginning of a file's name are passed over: see ``common_lead``.

    The parts are read one by one: the first that names a kind rules, so that a protocol copied from another
    sequence does not count against a description.
    """
    header = series.header
    parts = [header.description, header.protocol if protocol_tells else "", header.sequence_name]
    if series.kind == "volume":
        parts = [" ".join(_words(series)[lead:]), *parts]
    kinds: frozenset[str] = frozenset()
    contrast = ""
    for part in parts:
        text = plain(part)
        other = next(((label, found[0]) for label, rule in OTHERS.items() if (found := rule.search(text))), None)
        if other and not kinds and not _is_exception(other[0], text):
            return Named(kinds, *other, contrast or contrast_of(text, header.plane, series.kind))
        kinds = kinds or kinds_of(text)
        contrast = contrast or contrast_of(text, header.plane, series.kind)
    return Named(kinds, "", "", contrast)


def _is_exception(other: str, text: str) -> bool:
    """Words that mean a brain series in spite of a word of another kind."""
    return other == "another region than the brain" and bool(
        _pattern("brain|head|kopf|schadel|cerveau|cranio").search(text)
    )


def kinds_of(text: str) -> frozenset[str]:
    """The kinds that a plain text names; "T1 FLAIR" is one kind (GE's T1 with an inversion), "T2 FLAIR" is FLAIR.

    >>> sorted(kinds_of(plain("T2 FLAIR"))), sorted(kinds_of(plain("AX T1 FLAIR"))), sorted(kinds_of(plain("PD/T2")))
    (['flair'], ['t1 flair'], ['pd', 't2'])
    """
    flair = bool(_pattern(r"flair\w*|flare|dark ?fl\w*|da fl|df|spcir\w*").search(text))
    t1 = bool(_pattern("t1").search(text))
    t2 = bool(_pattern(r"t2|frfse\w*").search(text))
    if not (t1 or t2 or flair) and _pattern(T1_METHODS).search(text):
        t1 = True
    tirm = bool(_pattern("tirm").search(text))
    found = set()
    if tirm and not flair:
        found |= {"flair", "stir"}  # Siemens' word for both
    elif flair and t1 and not t2:
        found.add("t1 flair")
    elif flair:
        found.add("flair")
        if t1:
            found.add("t1")
    else:
        found |= {kind for kind, there in (("t1", t1), ("t2", t2)) if there}
    if _pattern("pdw?i?|pd w|dp|proton\\w*").search(text):
        found.add("pd")
    return frozenset(found)


def contrast_of(text: str, plane: str = "", kind: str = "dicom") -> str:
    """What a plain text says about contrast agent: "yes", "no", or "" where it is silent or says both.

    >>> [contrast_of(plain(name)) for name in ("T1 post GD", "T1 ohne KM", "T1 post fossa", "MR BRAIN W WO CONTRAST")]
    ['yes', 'no', '', '']
    """
    text = _pattern(NOT_CONTRAST).sub(" ", text)
    negated = bool(_pattern(NEGATED).search(text))
    text = _pattern(NEGATED).sub(" ", text)
    native = negated or bool(_pattern(NATIVE).search(text))
    agent = bool(_pattern(CONTRAST).search(text))
    # "T1c" is T1 with contrast, but on a scanner it may stand for "coronal"
    if _pattern("t1 c").search(text) and kind == "volume":
        agent = True
    if native == agent:
        return ""
    return "yes" if agent else "no"


# --- physics and ImageType ---------------------------------------------------------------------------------------


def physics(header: Header) -> Physics:
    """The kind of a series by its sequence and times: "t1", "t2", "flair", "pd", "stir", "t2*", "epi", or ""."""
    flags = set(re.findall(r"[A-Z0-9]+", header.scanning_sequence.upper()))
    prepared = "MP" in re.findall(r"[A-Z0-9]+", header.sequence_variant.upper())
    repetition, echo = header.repetition_ms, header.echo_ms
    inversion = header.inversion_ms if header.inversion_ms > 0 else math.nan
    text = ", ".join(
        f"{name} {value:.0f} ms" if value >= 100 else f"{name} {value:.3g} ms"
        for name, value in (("inversion time", inversion), ("repetition time", repetition), ("echo time", echo))
        if not math.isnan(value)
    )
    if "EP" in flags:
        return Physics("epi", True, f"echo-planar{', ' + text if text else ''}")
    if math.isnan(repetition) or math.isnan(echo):
        return Physics("", False, text)
    inverted = "IR" in flags or not math.isnan(inversion)
    gradient = "GR" in flags and "SE" not in flags
    known = bool(flags & {"SE", "GR"})
    if gradient or (not known and repetition <= 60):
        return Physics(*_gradient_echo(header, inverted or prepared, inversion, known), f"gradient echo, {text}")
    if {"GR", "SE"} <= flags:
        return Physics("", False, f"gradient and spin echo, {text}")
    if inverted:
        return Physics(*_inverted_spin_echo(repetition, echo, inversion), text)
    kind, sure = _spin_echo(header, known)
    return Physics(kind, sure, text)


def _gradient_echo(header: Header, inverted: bool, inversion: float, known: bool) -> tuple[str, bool]:
    repetition, echo, flip = header.repetition_ms, header.echo_ms, header.flip_angle_deg
    if echo >= 12:
        return "t2*", known
    if inverted and echo < 10 and not flip > 25 and not inversion > 1600:
        # with longer repetitions: the two images of MP2RAGE
        return "t1", repetition < 3000 and (known or inversion > 300)
    thin_volume = header.acquisition == "3D" and 4 < repetition <= 15 and 1.5 <= echo < 8 and not flip > 25
    thick_volume = header.acquisition == "3D" and 15 < repetition <= 50 and echo < 8 and flip >= 28
    flash = 80 <= repetition <= 500 and echo < 8 and flip >= 50
    return ("t1" if thin_volume or thick_volume or flash else ""), False


def _inverted_spin_echo(repetition: float, echo: float, inversion: float) -> tuple[str, bool]:
    if inversion <= 320:
        return "stir", True
    if echo >= 60 and repetition >= 3500 and not inversion < 1300:
        # without its inversion time a STIR looks the same, but has shorter times
        long = (repetition >= 6000 and echo >= 80) or (repetition >= 4500 and echo >= 100)
        return "flair", long or not math.isnan(inversion)
    if echo < 45 and repetition < 4500 and not inversion >= 1400:
        return "t1", not math.isnan(inversion)
    return "", False


def _spin_echo(header: Header, known: bool) -> tuple[str, bool]:
    repetition, echo = header.repetition_ms, header.echo_ms
    if echo < 35 and repetition <= 1500:
        return "t1", known and repetition <= 1300
    if echo < 45 and repetition > 1500:
        return "pd", False  # or a T1 FLAIR whose inversion is not recorded
    if echo >= 70 and repetition >= 1800:
        # a FLAIR whose inversion is not recorded has a long repetition time
        return "t2", known and repetition <= (3800 if header.acquisition == "3D" else 6500)
    return "", False


def other_by_image_type(image_type: str) -> str:
    """The kind that is not taken of which ImageType speaks, "" none.

    The first value (ORIGINAL or DERIVED) and the second are left out: some scanners call corrected originals derived.
    """
    values = [value.strip().upper().replace(" ", "_") for value in image_type.split("\\")]
    for label, words in OTHER_IMAGE_TYPES.items():
        known = set(words.split())
        for value in values[2:]:
            if value in known or (
                len(known & set(value.split("_"))) and label not in ("a phase image", "fat or opposed-phase image")
            ):
                return label
            if value in ("PHASE_MAP", "PROJECTION_IMAGE", "MIN_IP_IMAGE"):
                return "a phase image" if value == "PHASE_MAP" else "a projection"
    return ""


def agent_of(header: Header) -> str:
    """What ContrastBolusAgent says: "yes", "no" or "unknown"; its text goes no further."""
    text = plain(header.contrast_agent)
    if not text:
        return "unknown"
    return "no" if _pattern(NO_AGENT).fullmatch(text) or contrast_of(text) == "no" else "yes"


def seconds(time: str) -> float:
    """HHMMSS, perhaps with a fraction, as seconds since midnight; NaN where there is none."""
    found = re.match(r"(\d\d):?(\d\d):?(\d\d)", time.strip())
    return math.nan if not found else int(found[1]) * 3600 + int(found[2]) * 60 + int(found[3])


def common_lead(scan: Iterable[Series]) -> int:
    """How many words the names of a scan's volumes begin with in common: the patient's, not the sequence's."""
    names = [_words(one) for one in scan if one.kind == "volume"]
    alike = takewhile(lambda words: len(set(words)) == 1, zip(*names, strict=False))
    return len(list(alike)) if len(names) > 1 else 0


def _words(series: Series) -> list[str]:
    return re.split(r"[-_ ]+", PurePosixPath(series.key).name.split(".")[0])


def telling_protocols(scan: Iterable[Series]) -> set[str]:
    """The protocols that tell one series from another: not one that series of different descriptions share.

    GE writes the protocol of the whole examination ("BRAIN W CONTRAST") into every series.
    """
    descriptions: dict[str, set[str]] = {}
    for one in scan:
        descriptions.setdefault(one.header.protocol, set()).add(one.header.description)
    return {protocol for protocol, known in descriptions.items() if len(known) == 1}


def is_reformat(series: Series) -> bool:
    """Whether a name speaks of a reformat ("MPR"), and ImageType does not call the series an original.

    Siemens' MPRAGE is called "t1_mpr_sag" as well.
    """
    words = _pattern(r"mpr|mpvr|rfmt|reform\w*|ref?ormat\w*|recon\w*|rekon\w*|multiplan\w*|reconstr\w*")
    original = series.header.image_type.upper().startswith("ORIGINAL")
    return not original and bool(words.search(plain(_names(series))))


def is_noisy_uniform(series: Series) -> bool:
    """Whether it is MP2RAGE's uniform image without the suppression of noise."""
    text = plain(_names(series))
    return bool(_pattern("uni").search(text)) and not _pattern(r"den\w*").search(text)


def is_water(series: Series) -> bool:
    """Whether it is the water image of a Dixon acquisition."""
    by_type = {"WATER", "W"} & set(series.header.image_type.upper().split("\\"))
    return bool(by_type) or bool(
        _pattern(r"(?:m?dixon|vibe|flex)(?: \w+)* (?:w|wat\w*)").search(plain(_names(series)))
    )


def _names(series: Series) -> str:
    file = PurePosixPath(series.key).name if series.kind == "volume" else ""
    return f"{file} {series.header.description} {series.header.protocol}"
