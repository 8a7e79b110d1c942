"""Makes the site pleasant to look at: an administrator and a few notes, unless there are any."""

import os

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand

from notes.models import Note

NOTES = [
    ("Ada", "Hello", "This page comes from Django, inside a worker process of Apache httpd."),
    ("Grace", "Where do errors go?", "To httpd's error log. Try the link “Raise an error”."),
    ("Linus", "Who serves the style sheet?", "httpd itself, by its Alias directive."),
]


class Command(BaseCommand):
    help = "Create the user admin (password: SITE_ADMIN_PASSWORD) and sample notes."

    def handle(self, *args, **options):
        users = get_user_model().objects
        if not users.filter(username="admin").exists():
            password = os.environ.get("SITE_ADMIN_PASSWORD", "admin")
            users.create_superuser("admin", "admin@example.invalid", password)
            self.stdout.write("created the user admin")
        if not Note.objects.exists():
            for author, title, text in reversed(NOTES):
                Note.objects.create(author=author, title=title, text=text)
            self.stdout.write(f"created {len(NOTES)} notes")
