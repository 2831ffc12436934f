"""Stand-ins for models: judges that go by an image's colour, an engine that goes by a function."""


class FakeEngine:
    """Answers with what a function makes of each request, and keeps the requests."""

    def __init__(self, answer):
        self.answer, self.requests = answer, []

    def generate(self, requests):
        self.requests += requests
        return [self.answer(request) for request in requests]


class FakeQ16:
    """Finds an image as inappropriate as the first number of its embedding."""

    version = "q16@1"

    def score(self, embeddings):
        return [{"not_inappropriate": 0.5, "inappropriate": v} for v in embeddings[:, 0].tolist()]


class FakeNudeNet:
    """Detects one thing in every red image."""

    version = "3"

    def __init__(self, detection):
        self.detection = detection

    def find(self, images):
        return [(self.detection,) if i.getpixel((0, 0))[0] > 200 else () for i in images]
