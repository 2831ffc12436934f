"""The HTML page: ``build`` gathers what it shows, ``page.html`` says how it looks."""
