from django import forms

from .models import Note


class NoteForm(forms.ModelForm):
    class Meta:
        model = Note
        fields = ["author", "title", "text", "attachment"]
        widgets = {"text": forms.Textarea(attrs={"rows": 6})}
