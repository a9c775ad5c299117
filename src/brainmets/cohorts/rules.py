"""Every rule of the audit: its name, how grave it is, what it catches, what it says and what to do.

The rules are data, declared here and nowhere else (those on plausibility beside the limits that they judge by, in
``plausibility``); docs/audit.md shows them as a table. An *error* stops the study, since a result would be wrong; a
*warning* is a question to a person; an *info* says what is as declared and matters to whoever reads the results. Under
``audit.on_error: quarantine`` an error leaves its cases out instead.
"""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple

from brainmets.cohorts import plausibility

Severity = Literal["error", "warning", "info"]

QUARANTINED = "quarantined"
"""What ``severity`` says in the place of "error" once the finding's cases were left out."""
FINDING_COLUMNS = ("severity", "rule", "case", "file", "finding")


class Rule(NamedTuple):
    """One rule; a finding's text is ``message``, with its fields filled in, and ``remedy``.

    ``example``: the damage that a test does to a case to break the rule. Where a rule speaks in words of its own
    (``message`` is empty), ``remedy`` is what the table of rules says.
    """

    rule: str
    severity: Severity
    catches: str
    message: str
    remedy: str
    example: str

    def text(self, **values: Any) -> str:
        """The finding's text; ``KeyError`` where a field has no value."""
        return f"{self.message}; {self.remedy}".format(**values)

    def fits(self, text: str) -> bool:
        """Whether a text is a message of this rule, whatever stands in its fields."""
        parts = re.split(r"\{[^{}]*\}", self.message)
        return re.match("(.|\\n)+".join(map(re.escape, parts)), text) is not None


COPY_AGAIN = "copy it again"
WRITE_AGAIN = "write the file again"

FILES = (
    Rule("empty file", "error", "A file without a byte.", "is empty (0 bytes)", COPY_AGAIN, "an empty file"),
    Rule(
        "unreadable", "error", "A file that is no NIfTI file, or cannot be opened.",
        "cannot be read ({why})", COPY_AGAIN, "text under an image's name",
    ),
    Rule(
        "truncated", "error", "A file that ends before its last voxel, or a gzip stream that ends too early.",
        "is truncated: {what}", COPY_AGAIN, "a file whose last 20 bytes are missing",
    ),
    Rule(
        "checksum", "error", "A gzip stream whose checksum or length is not that of its content.",
        "is damaged: its voxels do not fit gzip's checksum or cannot be inflated", COPY_AGAIN,
        "a file with one bit flipped",
    ),
    Rule(
        "more than voxels", "error", "A file that holds more than its header describes: one of them is wrong.",
        "holds more than the voxels that its header describes", "write it again", "bytes behind the voxels",
    ),
    Rule(
        "too large", "error", "A header that promises more than 4 GiB of voxels.",
        "its header, of shape {shape}, promises {size} GiB, and no more than {limit} are read: its header is damaged",
        COPY_AGAIN, "a header of 30,000 voxels a side",
    ),
    Rule(
        "dimensions", "error", "A file that is not one volume of three dimensions.",
        "must be one 3D volume of three dimensions, its shape is {shape}", "give one volume of it",
        "a series of two volumes",
    ),
    Rule(
        "voxel type", "error", "Voxels that are no single numbers: colour, complex.",
        "its voxels are no single numbers (colour or complex)", "export its grey values",
        "complex voxels",
    ),
)  # fmt: skip
GEOMETRY = (
    Rule(
        "voxel sides", "error", "Voxel sides in the header that are zero, negative, not finite or absurd.",
        "its header gives voxel sides of {sides} mm, not between {least} and {most}: no scan of a head has them",
        f"{WRITE_AGAIN} with the right sides", "a side of 0 in the header",
    ),
    Rule(
        "voxel sides against affine", "error", "A header whose voxel sides are not those of its affine (0.1%).",
        "the header gives voxel sides of {sides} mm, its affine {others} mm: distances would be wrong under one of "
        "them", f"{WRITE_AGAIN} with a consistent header", "a side of 3.97 mm in the header, 1 mm in the affine",
    ),
    Rule(
        "affine", "error", "An affine that is not finite or spans no volume.",
        "the axes of its affine {affine} span no volume: its header is damaged", WRITE_AGAIN,
        "an affine with an axis of length 0",
    ),
    Rule(
        "shear", "error", "Axes that are not at right angles (by more than 0.1 degrees); oblique ones are right.",
        "the axes of its affine lean by {lean} degrees: it is sheared, and distances by the voxel sides would be "
        "wrong", "resample it onto a grid of right angles", "an axis that leans by 8 degrees",
    ),
    Rule(
        "sform against qform", "error", "Two statements of where the head lies that part by more than 1 mm.",
        "its sform ({axes}) and its qform ({others}) put a corner {apart} mm apart: one program follows the one, "
        "another the other", f"{WRITE_AGAIN} with one of them", "a qform that exchanges left and right",
    ),
    Rule(
        "qform", "error", "A quaternion in the header that is no rotation.",
        "its qform is no rotation: its header is damaged", WRITE_AGAIN, "a quaternion longer than 1",
    ),
    Rule(
        "no orientation", "warning", "A header that does not say where its axes point (sform and qform code 0).",
        "its header says no orientation: left and right cannot be told apart", "export it again",
        "both codes set to 0",
    ),
    Rule(
        "other shape", "error", "A file of another shape than the t1c.",
        "its shape {shape} differs from the {first}'s {reference}", "{remedy}", "an image with a slice less",
    ),
    Rule(
        "other axes", "error", "A file on the t1c's grid, stored along other axes.",
        "its axes are {axes}, the {first}'s {reference}", "reorient it", "a label map stored from left to right",
    ),
    Rule(
        "other place", "error", "A file whose corners lie more than 0.01 mm from the t1c's.",
        "its affine {affine} differs from the {first}'s {reference}: corners lie {apart} mm apart", "{remedy}",
        "an image with other voxel sides",
    ),
    Rule(
        "not registered", "error", "Anatomy that lies elsewhere than the t1c's, on one grid.",
        "its anatomy lies about {away} mm from the {first}'s, though both share a grid: the scans are not registered "
        "to each other", "register them (resampling by the header does not)", "an image moved by 15 mm",
    ),
    Rule(
        "no common anatomy", "warning", "Anatomy that matches the t1c's in no place.",
        "its anatomy matches the {first}'s in no place within 60 mm, though both share a grid",
        "compare them in a viewer; if they differ, register the scans of this patient to each other",
        "an image turned upside down",
    ),
)  # fmt: skip
VALUES = (
    Rule(
        "not finite", "error", "NaN or infinite voxels.",
        "{count} voxels are NaN or infinite", "export it again, or set them to 0 where they surround the head",
        "an image with NaN",
    ),
    Rule(
        "beyond float32", "error", "Values that a network, which computes in 32 bits, cannot hold or square.",
        "its values reach {value}: in the 32 bits that a network computes with, they or their squares are infinite",
        "scale them to a usual range (up to some thousands)", "an image times 1e300",
    ),
    Rule(
        "no contrast in float32", "error", "Values that are all the same, or next to 0, in 32 bits.",
        "its values from {low} to {high} spread by {spread} in the 32 bits that a network computes with: it would see "
        "a constant", "scale them to a usual range (up to some thousands)", "an image times 1e-45",
    ),
    Rule(
        "constant image", "error", "An image of one value.",
        "every voxel is {value}", "is it the right file?", "an image of 3 everywhere",
    ),
    Rule(
        "background", "warning", "An image with another value than 0 around the head.",
        "{level} surrounds the head, not 0", "a copy with 0 there is used instead", "-3.25 around the head",
    ),
)  # fmt: skip
LABELS = (
    Rule(
        "fractional label", "error", "A label map that was interpolated.",
        "a label map must hold whole numbers, found {values} in {count} voxels",
        "take the map as it was drawn, not resampled", "a label map of 0.25",
    ),
    Rule(
        "unknown label", "error", "A label that `label_map` does not name.",
        "unknown label value(s) {values}; known are {known}",
        "correct the file, or name them in label_map", "a label map with a 9",
    ),
    Rule(
        "no lesion", "warning", "An empty label map of a case that `lesion_free` does not list.",
        "holds no lesion", "is that so? If it is, list the case in the table of `lesion_free`", "a label map of zeros",
    ),
    Rule(
        "lesion in a lesion-free case", "error", "Labels in a case that `lesion_free` lists.",
        "holds {count} lesion(s), {volume} mL, and `lesion_free` lists this case",
        "take the case from the list, or correct the label map", "a lesion in a case that is listed",
    ),
)  # fmt: skip
REPEATS = (
    Rule(
        "scan in both cohorts", "error", "The same image, disguised or not, in the source and in the target.",
        "holds the same image as {twin} of the {cohort} cohort: a network would be tested on what it was pretrained "
        "on", "remove one", "a target's t1c that is a source's",
    ),
    Rule(
        "scan of two patients", "error", "The same image under two patients.",
        "holds the same image as {twin} of patient {patient}: a split could not keep them together",
        "correct the names, or remove one", "a patient's t1c that is another's",
    ),
    Rule(
        "scan of two sequences", "error", "The same image as two sequences of a case, whatever their headers say.",
        "holds the same image as {twin}, another sequence of this case", "correct the file or `layout`",
        "a t1n that is the t1c",
    ),
    Rule(
        "scan twice", "warning", "The same image in two cases of a patient.",
        "holds the same image as {twin} of another case of this patient", "remove one, if it is no second scan",
        "a patient's two cases with one t1c",
    ),
)  # fmt: skip
COHORTS = (
    Rule(
        "empty region", "warning", "A region that is empty in every case.",
        "{region} ({parts}) is empty in every case: {why}",
        "is label_map right? If it is, no network learns {region} from this cohort, and scores of {region} on it say "
        "nothing", "label_map without et",
    ),
    Rule(
        "no tumour", "error", "A cohort whose label maps are all empty.",
        "no label map holds any tumour: nothing can be learnt from this cohort or tested on it", "correct them",
        "label maps of zeros",
    ),
    Rule(
        "old labels", "error", "Resection cavities and no enhancing tumour: labels of BraTS before 2023.",
        "label {value}, which label_map calls rc (resection cavity), is in {count} case(s), and no case holds et "
        "(enhancing tumour): before 2023, BraTS wrote enhancing tumour as 4",
        "if yours does, write label_map: {{1: netc, 2: snfh, {value}: et}}; if these are cavities, call them "
        "background", "label maps with 4 and no 3",
    ),
    Rule(
        "repeated patient", "warning", "Names that look like several scans of a patient that count as patients.",
        "each of the {count} cases counts as a patient, yet {names} look like scans of one",
        "if they are, a patient would be trained and tested on: give layout.patient an expression whose first group "
        "is the patient", "cases P1_1 and P1_2 among four",
    ),
)  # fmt: skip
LACKING = (
    Rule(
        "lacks a sequence", "info", "A case without a sequence that `may_lack` names.",
        "has no {absent}, as may_lack allows; for want of it these rules say less than of other cases, or nothing: "
        "{rules}", "add the file if there is one", "a case without a t2w",
    ),
    Rule(
        "sets of sequences", "info", "Cases of a cohort that have not all the same sequences.",
        "cases by the sequences that they have: {counts}", "read the scores of each set of sequences apart",
        "two of three training cases with all four sequences",
    ),
    Rule(
        "untaught set of sequences", "warning", "Held-out cases with a set of sequences that no training case has.",
        "{count} held-out case(s) ({cases}) have {sequences} alone, as no training case has",
        "hold out other cases, or train with sequence_dropout, which shows the networks such sets",
        "a held-out case without a t2w, and training cases that have all",
    ),
    Rule(
        "sequence not taught in a fold", "warning", "A sequence that the training cases of a fold all lack.",
        "{sequence} in no training case of fold(s) {folds}: their networks would learn nothing of it, and their "
        "trainings stop before the first step",
        "leave these folds out of `folds`, draw anew (another seed), or leave it out of `sequences`",
        "a t2w in one training case alone, which a fold validates",
    ),
)  # fmt: skip
SIDES = (
    Rule(
        "not taught", "error", "A region of the test that no training case has.",
        "{regions} in no training case, yet in {count} held-out one(s) ({cases}): no network can learn it",
        "hold out other cases (a list, `draw: by_load` or another seed), or add cases",
        "enhancing tumour in the held-out case alone",
    ),
    Rule(
        "nothing to find", "error", "A test without any lesion.",
        "{regions} in no held-out case: no lesion could be found in the test", "hold out other cases",
        "a held-out case without tumour",
    ),
    Rule(
        "not tested", "warning", "A region that the test lacks.",
        "{regions} in no held-out case: the test says nothing about finding it", "hold out other cases",
        "a held-out case without enhancing tumour",
    ),
    Rule(
        "nothing taught in a fold", "error", "A fold that would train without any lesion.",
        "no training case of fold(s) {folds} holds a lesion: their networks would learn to find none",
        "draw anew (`draw: by_load`, another seed), or take fewer folds",
        "one training case with tumour, the other lesion-free",
    ),
    Rule(
        "lesion-free cases on one side", "warning", "Lesion-free cases in the training alone, or in the test alone.",
        "{count} case(s) are lesion-free, and {none}", "hold out other cases (`draw: by_load` spreads them)",
        "two lesion-free cases, none held out",
    ),
    Rule(
        "not taught in a fold", "warning", "A region that the training cases of a fold lack.",
        "{regions} in no training case of fold(s) {folds}: the networks of these folds cannot learn it",
        "do not train such a fold alone, and draw anew (another seed, `draw: by_load`) where you can",
        "enhancing tumour in one training case",
    ),
    Rule(
        "not validated in a fold", "warning", "A region that the validation cases of a fold lack.",
        "{regions} in no validation case of fold(s) {folds}: the validation of these folds says nothing about it",
        "draw anew (another seed, `draw: by_load`) where it matters", "enhancing tumour in one training case",
    ),
)  # fmt: skip
SCOPE = (
    Rule(
        "rules passed over", "info", "A cohort of which fewer than the four sequences are read.",
        "of this cohort {sequences} alone is read: for want of {absent} these rules say less of every case, or "
        "nothing: {rules}", "look at the cases with that in mind", "a cohort that reads the t1c alone",
    ),
)  # fmt: skip
PREPARATION = (
    Rule(
        "preparation error", "error", "A flag of severity error on the preparation of raw scans.", "",
        "look at the case in quality.html; a case that is right all the same is named in raw.accepted",
        "a t2w that registered 12 mm away",
    ),
    Rule(
        "preparation", "warning", "A flag of severity warning on the preparation of raw scans.", "",
        "look at the case in quality.html", "a brain mask from the second choice",
    ),
)  # fmt: skip
PLAUSIBILITY = tuple(
    Rule(one.rule, one.severity, one.catches, "", one.remedy, one.example) for one in plausibility.RULES
)  # their text is made where they are measured
RULES = {
    rule.rule: rule
    for rule in (
        *FILES,
        *GEOMETRY,
        *VALUES,
        *LABELS,
        *REPEATS,
        *COHORTS,
        *SCOPE,
        *LACKING,
        *SIDES,
        *PREPARATION,
        *PLAUSIBILITY,
    )
}
OF_A_COHORT = tuple(rule.rule for rule in (*COHORTS, *SCOPE))


def finding(rule: str, case: str, file: str, **values: Any) -> dict[str, str]:
    """A row of ``FINDING_COLUMNS`` in the words of a rule; ``case`` is "all" and ``file`` empty where it is about all.

    Raises ``KeyError`` for a name that is no rule's, and for a field of the message without a value.
    """
    return noted(rule, case, file, RULES[rule].text(**values))


def noted(rule: str, case: str, file: str, text: str) -> dict[str, str]:
    """A row of ``FINDING_COLUMNS`` with a text that was made where the fault was seen."""
    return {"severity": RULES[rule].severity, "rule": rule, "case": case, "file": file, "finding": text}
