from django.contrib import admin

from .models import Note


@admin.register(Note)
class NoteAdmin(admin.ModelAdmin):
    list_display = ["title", "author", "created", "attachment"]
    search_fields = ["title", "author", "text"]
    date_hierarchy = "created"
