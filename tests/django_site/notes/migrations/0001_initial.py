from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Note",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("author", models.CharField(max_length=80)),
                ("title", models.CharField(max_length=120)),
                ("text", models.TextField(blank=True)),
                ("attachment", models.FileField(blank=True, upload_to="attachments/")),
                ("created", models.DateTimeField(auto_now_add=True)),
            ],
            options={"ordering": ["-created", "-pk"]},
        ),
    ]
