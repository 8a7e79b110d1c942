import getpass
import os

from django.http import HttpResponse, JsonResponse
from django.urls import path


def home(request):
    return HttpResponse("the project alpha")


def where(request):
    return JsonResponse(
        {
            "pid": os.getpid(),
            "user": getpass.getuser(),
            "uid": os.getuid(),
            "directory": os.getcwd(),
            "group": request.environ["mod_wsgi.process_group"],
            "application_group": request.environ["mod_wsgi.application_group"],
            "multiprocess": request.environ["wsgi.multiprocess"],
            "settings": os.environ["DJANGO_SETTINGS_MODULE"],
            "url": request.build_absolute_uri(),
        }
    )


def fail(request):
    raise RuntimeError("the project alpha fails")


urlpatterns = [path("", home), path("where/", where), path("fail/", fail)]
