"""What a run has to show: an HTML page and a Markdown summary.

``data`` says what they are made of, ``read`` and its parts read it; ``tables``, ``findings``,
``side_effects``, ``front``, ``scaling``, ``charts`` and ``grid`` turn that into what is shown,
``personal`` and its parts what people of different boundaries are shown; ``page.html.jinja``,
``page.css`` and ``page.js`` say how, and ``markdown`` in short; ``build`` writes both. ``summary``
prints tables on the command line, those of the studies too.
"""
