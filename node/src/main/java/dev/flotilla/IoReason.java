package dev.flotilla;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.CharacterCodingException;
import java.nio.file.AccessDeniedException;
import java.nio.file.DirectoryNotEmptyException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.FileSystemException;
import java.nio.file.NoSuchFileException;
import java.nio.file.NotDirectoryException;
import java.util.Locale;

/** Why a file could not be used, in words for people: the platform's own name a class. */
public final class IoReason {

  private static final String UNKNOWN = "the disk does not answer";

  private IoReason() {}

  /** To be put behind what could not be done, and the file's name. */
  public static String of(UncheckedIOException e) {
    return e.getCause() == null ? UNKNOWN : of(e.getCause());
  }

  /** As above. */
  public static String of(IOException e) {
    return switch (e) {
      case NoSuchFileException _ -> "there is no such file";
      case AccessDeniedException _ -> "access is denied";
      case FileAlreadyExistsException _ -> "it is there already";
      case NotDirectoryException _ -> "it is not a folder";
      case DirectoryNotEmptyException _ -> "the folder is not empty";
      case CharacterCodingException _ -> "it is not text in UTF-8";
      case FileSystemException other when other.getReason() != null ->
          other.getReason().toLowerCase(Locale.ROOT);
      default -> e.getMessage() == null ? UNKNOWN : e.getMessage();
    };
  }
}
