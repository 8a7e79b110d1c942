from django.contrib.auth.models import User
from django.http import HttpResponse
from django.urls import path


def home(request):
    return HttpResponse(f"{User.objects.count()} agents")


urlpatterns = [path("", home)]
