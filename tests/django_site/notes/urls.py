from django.urls import path

from . import views

urlpatterns = [
    path("", views.NoteList.as_view(), name="notes"),
    path("new/", views.NoteCreate.as_view(), name="new-note"),
    path("notes/<int:pk>/", views.NoteDetail.as_view(), name="note"),
    path("notes/<int:pk>/attachment/", views.attachment, name="attachment"),
    path("export.csv", views.export, name="export"),
    path("server/", views.server, name="server"),
    path("broken/", views.broken, name="broken"),
]
