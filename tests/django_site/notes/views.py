import csv
import os
import sys
import threading

import django
from django.http import FileResponse, Http404, StreamingHttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.generic import CreateView, DetailView, ListView

from .forms import NoteForm
from .models import Note


class NoteList(ListView):
    model = Note
    paginate_by = 10


class NoteDetail(DetailView):
    model = Note


class NoteCreate(CreateView):
    model = Note
    form_class = NoteForm


def attachment(request, pk):
    """The file of a note; FileResponse hands it to the server's wsgi.file_wrapper."""
    note = get_object_or_404(Note, pk=pk)
    if not note.attachment:
        raise Http404("this note has no attachment")
    stream = note.attachment.open("rb")
    return FileResponse(stream, as_attachment=True, filename=note.attachment_name)


class _Line:
    """What csv.writer needs of a file: write() hands the line back."""

    def write(self, line):
        return line


def export(request):
    """All notes as CSV, one row at a time: the response has no known length."""
    writer = csv.writer(_Line())

    def rows():
        yield writer.writerow(["created", "author", "title", "text"])
        for note in Note.objects.iterator():
            created = note.created.isoformat(timespec="seconds")
            yield writer.writerow([created, note.author, note.title, note.text])

    headers = {"Content-Disposition": 'attachment; filename="notes.csv"'}
    return StreamingHttpResponse(rows(), content_type="text/csv; charset=utf-8", headers=headers)


def server(request):
    """What serves this page: versions, process and thread, and the WSGI variables."""
    facts = {
        "Server": request.META.get("SERVER_SOFTWARE", ""),
        "Python": sys.version.split()[0],
        "Python prefix": sys.prefix,
        "Django": django.get_version(),
        "Process": os.getpid(),
        "Thread": threading.current_thread().name,
    }
    for name in sorted(key for key in request.META if key.startswith(("wsgi.", "mod_wsgi."))):
        # As text: a template would call what can be called.
        facts[name] = str(request.META[name])
    return render(request, "notes/server.html", {"facts": facts})


def broken(request):
    """A bug, for looking at the 500 page and at the traceback in the error log."""
    raise RuntimeError("this view is broken on purpose")
