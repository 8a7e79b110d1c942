from pathlib import Path

from django.db import models
from django.urls import reverse


class Note(models.Model):
    """A note that anybody may leave, with a file if they like."""

    author = models.CharField(max_length=80)
    title = models.CharField(max_length=120)
    text = models.TextField(blank=True)
    attachment = models.FileField(upload_to="attachments/", blank=True)
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-created", "-pk"]

    def __str__(self):
        return self.title

    def get_absolute_url(self):
        return reverse("note", args=[self.pk])

    @property
    def attachment_name(self):
        """The name of the stored file without its directory."""
        return Path(self.attachment.name).name
