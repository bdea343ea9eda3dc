"""Makes thumbnails: an image of any common format in, a PNG out."""

import io

from PIL import Image, ImageOps, UnidentifiedImageError

MOST_PIXELS = 25_000_000  # 100 MB once unpacked: what fits in `memory`


def handle(request):
    size = int(request.query_params.get("size", 128))
    if not 1 <= size <= 2048:
        return {"error": "size must be from 1 to 2048 pixels"}, 400
    try:
        image = Image.open(io.BytesIO(request.body))
    except UnidentifiedImageError:
        return {"error": "The body is not an image in a known format"}, 415
    if image.width * image.height > MOST_PIXELS:
        return {"error": f"The image has more than {MOST_PIXELS} pixels"}, 413

    image = ImageOps.exif_transpose(image)
    image.thumbnail((size, size))
    png = io.BytesIO()
    image.save(png, "PNG", optimize=True)
    return png.getvalue(), 200, {"content-type": "image/png"}
