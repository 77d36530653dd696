package dev.flotilla.app;

import java.util.Optional;

/** What people write for a backup: a name, or an absolute path whose last part is the name. */
record BackupTarget(Optional<String> folder, String name) {

  static BackupTarget of(String text) {
    int slash = text.lastIndexOf('/');
    if (slash < 0) {
      return new BackupTarget(Optional.empty(), text);
    }
    return new BackupTarget(
        Optional.of(slash == 0 ? "/" : text.substring(0, slash)), text.substring(slash + 1));
  }
}
