"""Which of the 478 points of a face are what: numbers of the MediaPipe face mesh with irises (Apache-2.0).

"Right" is the person's right, which a picture shows on the left. Lists of both sides run in the same order:
`LEFT_EYE[i]` is the mirror image of `RIGHT_EYE[i]`.
"""

from __future__ import annotations

POINTS = 478
CHIN, FOREHEAD, NOSE_TIP = 152, 10, 1
EARS = (234, 454)  # where the outline passes them
CORNERS = (61, 291)  # of the mouth: right, left
UPPER_INNER = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)  # edge of the upper lip, right to left
LOWER_INNER = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
LIPS = (
    *(61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146),  # outline
    *(76, 184, 74, 73, 72, 11, 302, 303, 304, 408, 306, 307, 320, 404, 315, 16, 85, 180, 90, 77),
    *(62, 183, 42, 41, 38, 12, 268, 271, 272, 407, 292, 325, 319, 403, 316, 15, 86, 179, 89, 96),
    *(78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95),  # opening
)
# An eye: outer and inner corner, upper lid, lower lid, fold of the upper lid, iris (centre first).
RIGHT_EYE = (
    *(33, 133),
    *(246, 161, 160, 159, 158, 157, 173),
    *(7, 163, 144, 145, 153, 154, 155),
    *(247, 30, 29, 27, 28, 56, 190),
    *(468, 469, 470, 471, 472),
)
LEFT_EYE = (
    *(263, 362),
    *(466, 388, 387, 386, 385, 384, 398),
    *(249, 390, 373, 374, 380, 381, 382),
    *(467, 260, 259, 257, 258, 286, 414),
    *(473, 476, 475, 474, 477),
)
EYES = (RIGHT_EYE, LEFT_EYE)
IRISES = (468, 473)
BROWS = ((70, 63, 105, 66, 107, 46, 53, 52, 65, 55), (300, 293, 334, 296, 336, 276, 283, 282, 295, 285))
OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152),
    *(148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
# Points that neither speech nor lids move: the pose of the head is read from them.
RIGID = (
    *(33, 133, 362, 263, 168, 6, 197, 195, 5, 4, 1, 98, 327, 10, 151, 9),
    *(127, 356, 234, 454, 162, 389, 103, 332, 117, 346),
)
